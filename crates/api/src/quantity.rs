//! Resource quantities: `100m`, `1.5Gi`, `12e6`.
//!
//! Exact: a [`Quantity`] is a whole number of nano-units. Whatever is finer is rounded away from zero,
//! so that who asks for a little gets a little (upstream: `resource.Quantity`).

use std::{
    cmp::Ordering,
    fmt::{self, Display},
    iter::Sum,
    ops::{Add, AddAssign, Neg, Sub, SubAssign},
    str::FromStr,
};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

const NANOS_PER_UNIT: i128 = 1_000_000_000;
const NANOS_PER_MILLI: i128 = 1_000_000;

/// Which family of suffixes a quantity is printed with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    #[default]
    DecimalSi,
}

/// An exact amount of a resource. Compares by amount; saturates instead of overflowing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity; the sentences are upstream's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// A quantity taken apart, leading zeros gone.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let negative = text.starts_with('-');
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let digits_end = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (whole, rest) = unsigned.split_at(digits_end(unsigned));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits_end(rest)),
            None => ("", rest),
        };
        let exponent = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if !exponent.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(QuantityError::Format);
        }
        if whole.is_empty() && fraction.is_empty() && !suffix.is_empty() {
            return Err(QuantityError::Numeric);
        }
        Ok(Self { negative, whole: whole.trim_start_matches('0'), fraction, suffix })
    }
}

/// What a suffix multiplies by.
enum Scale {
    PowerOfTen(i32),
    PowerOfTwo(u32),
}

const DECIMAL_SUFFIXES: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY_SUFFIXES: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

fn scale_of(suffix: &str) -> Result<(Scale, Format), QuantityError> {
    if let Some((_, exponent)) = DECIMAL_SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Ok((Scale::PowerOfTen(*exponent), Format::DecimalSi));
    }
    if let Some((_, exponent)) = BINARY_SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Ok((Scale::PowerOfTwo(*exponent), Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent = exponent.parse().map_err(|_| QuantityError::Suffix)?;
    Ok((Scale::PowerOfTen(exponent), Format::DecimalExponent))
}

/// `digits * 10^exponent` nano-units, rounded up, saturated.
fn scaled(digits: i128, exponent: i32) -> i128 {
    if digits == 0 {
        return 0;
    }
    let power = |exponent: u32| 10i128.checked_pow(exponent);
    match exponent {
        0.. => power(exponent.unsigned_abs()).and_then(|factor| digits.checked_mul(factor)).unwrap_or(i128::MAX),
        _ => power(exponent.unsigned_abs()).map_or(1, |divisor| round_up(digits, divisor)),
    }
}

/// Division that rounds away from zero; `divisor` is positive.
fn round_up(amount: i128, divisor: i128) -> i128 {
    let quotient = amount / divisor;
    if amount % divisor == 0 { quotient } else { quotient + amount.signum() }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let parts = Parts::split(text)?;
        let (scale, mut format) = scale_of(parts.suffix)?;
        // Digits beyond the 30th after the point cannot be told from "a little more than nothing".
        let fraction = parts.fraction.get(..30).unwrap_or(parts.fraction);
        let digits = format!("{}{fraction}", parts.whole);
        let digits: i128 = match digits.as_str() {
            "" => 0,
            digits => digits.parse().unwrap_or(i128::MAX),
        };
        let places = i32::try_from(fraction.len()).unwrap_or(i32::MAX);
        let nanos = match scale {
            Scale::PowerOfTen(exponent) => scaled(digits, exponent.saturating_sub(places).saturating_add(9)),
            Scale::PowerOfTwo(exponent) => {
                let multiplied = digits.checked_mul(1i128 << exponent).unwrap_or(i128::MAX);
                scaled(multiplied, 9 - places).min(i128::from(i64::MAX) * NANOS_PER_UNIT)
            }
        };
        if format == Format::BinarySi && nanos > 0 && nanos < NANOS_PER_UNIT {
            format = Format::DecimalSi;
        }
        Ok(Self { nanos: if parts.negative { -nanos } else { nanos }, format })
    }
}

impl Quantity {
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole number of units, printed with decimal suffixes.
    pub fn units(value: i64) -> Self {
        Self { nanos: i128::from(value) * NANOS_PER_UNIT, format: Format::DecimalSi }
    }

    /// Thousandths, printed with decimal suffixes.
    pub fn milli(value: i64) -> Self {
        Self { nanos: i128::from(value) * NANOS_PER_MILLI, format: Format::DecimalSi }
    }

    /// A whole number of bytes, printed with binary suffixes.
    pub fn bytes(value: i64) -> Self {
        Self { format: Format::BinarySi, ..Self::units(value) }
    }

    /// Of the API type; a text that is no quantity counts as zero (validation has refused it).
    pub fn of(text: &Text) -> Self {
        text.0.trim().parse().unwrap_or_default()
    }

    /// The API type.
    pub fn to_text(self) -> Text {
        Text(self.to_string())
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(self) -> i32 {
        match self.nanos.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// Whole units, rounded up (upstream: `Value`).
    pub fn value(self) -> i64 {
        saturate(round_up(self.nanos, NANOS_PER_UNIT))
    }

    /// Whole units of a byte count, rounded up.
    pub fn to_bytes(self) -> i64 {
        self.value()
    }

    /// Thousandths, rounded up (upstream: `MilliValue`).
    pub fn to_milli(self) -> i64 {
        saturate(round_up(self.nanos, NANOS_PER_MILLI))
    }

    /// Whether it is a whole number of `milli`-thousandths (1000: of units).
    pub fn is_multiple_of_milli(self, milli: i64) -> bool {
        milli != 0 && self.nanos % (i128::from(milli) * NANOS_PER_MILLI) == 0
    }

    /// Approximate, for ratios and metrics.
    pub fn to_f64(self) -> f64 {
        self.nanos as f64 / NANOS_PER_UNIT as f64
    }

    /// Times a whole number.
    #[must_use]
    pub fn times(self, factor: i64) -> Self {
        Self { nanos: self.nanos.saturating_mul(i128::from(factor)), ..self }
    }

    pub fn format(self) -> Format {
        self.format
    }
}

/// Checks a text and brings it into the form upstream would store: `1.5` becomes `1500m`.
/// A text that upstream takes for canonical stays as it is, even where it is not (`+5`, `1.125`).
pub fn canonical(text: &str) -> Result<String, QuantityError> {
    let text = text.trim();
    let parts = Parts::split(text)?;
    let quantity: Quantity = text.parse()?;
    let digits = format!("{}{}", parts.whole, parts.fraction);
    let kept = match scale_of(parts.suffix)?.0 {
        _ if digits.len() > 15 || parts.whole.is_empty() => false,
        Scale::PowerOfTen(exponent) => {
            (exponent - parts.fraction.len() as i32) % 3 == 0 && !digits.ends_with("000") && exponent.abs() <= 18
        }
        Scale::PowerOfTwo(_) => parts.fraction.is_empty() && digits.parse::<u64>().is_ok_and(|value| value & 7 != 0),
    };
    Ok(if kept { text.to_owned() } else { quantity.to_string() })
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// The largest power of 10^3 (2^10) that divides, as (mantissa, times).
fn factor_out(mut amount: i128, base: i128, times_max: i32) -> (i128, i32) {
    let mut times = 0;
    while times < times_max && amount % base == 0 {
        amount /= base;
        times += 1;
    }
    (amount, times)
}

impl Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos / NANOS_PER_UNIT;
        let binary = self.format == Format::BinarySi && self.nanos % NANOS_PER_UNIT == 0 && whole.abs() >= 1024;
        if binary {
            let (mantissa, times) = factor_out(whole, 1024, BINARY_SUFFIXES.len() as i32);
            let suffix = if times == 0 { "" } else { BINARY_SUFFIXES[times as usize - 1].0 };
            return write!(f, "{mantissa}{suffix}");
        }
        if self.format == Format::DecimalExponent {
            let (mantissa, times) = factor_out(self.nanos, 1000, i32::MAX);
            return match times * 3 - 9 {
                0 => write!(f, "{mantissa}"),
                exponent => write!(f, "{mantissa}e{exponent}"),
            };
        }
        let (mantissa, times) = factor_out(self.nanos, 1000, DECIMAL_SUFFIXES.len() as i32 - 1);
        write!(f, "{mantissa}{}", DECIMAL_SUFFIXES[times as usize].0)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}
impl Neg for Quantity {
    type Output = Self;
    fn neg(self) -> Self {
        Self { nanos: self.nanos.saturating_neg(), ..self }
    }
}
impl Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}
impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}
impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(quantities: I) -> Self {
        quantities.fold(Self::ZERO, Self::add)
    }
}

impl From<&Text> for Quantity {
    fn from(text: &Text) -> Self {
        Self::of(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn canonical_forms_are_upstreams() {
        let rows = [
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1000m", "1"),
            ("0.5Gi", "512Mi"),
            ("1024Mi", "1Gi"),
            ("1000M", "1G"),
            (".001Ki", "1024m"),
            (".000001Ki", "1024u"),
            (".000000000001Ki", "2n"),
            ("-1.5Gi", "-1536Mi"),
            ("0", "0"),
            ("0.0", "0"),
            ("0Ki", "0"),
            ("1e3", "1e3"),
            ("1000e0", "1e3"),
            ("0.1n", "1n"),
            ("1023", "1023"),
            ("1Ki", "1Ki"),
            ("100000000", "100M"),
            ("1025Ki", "1025Ki"),
            ("+5", "+5"),
            ("8Ei", "9223372036854775807"),
        ];
        for (input, expected) in rows {
            assert_eq!(canonical(input).as_deref(), Ok(expected), "{input}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for (input, error) in [
            ("", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1.1.1", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1MiB", QuantityError::Format),
            ("1mi", QuantityError::Suffix),
            ("1K", QuantityError::Suffix),
            ("Mi", QuantityError::Numeric),
            ("1.1e", QuantityError::Suffix),
        ] {
            assert_eq!(canonical(input), Err(error), "{input}");
        }
    }

    #[test]
    fn values_round_up() {
        assert_eq!((parse("100m").value(), parse("100m").to_milli()), (1, 100));
        assert_eq!((parse("1n").to_milli(), parse("-100m").value()), (1, -1));
        assert_eq!(parse("1Gi").to_bytes(), 1 << 30);
        assert_eq!((parse("1") - parse("300m")).to_string(), "700m");
        assert_eq!((Quantity::ZERO + parse("2Gi") + parse("512Mi")).to_string(), "2560Mi");
        assert!(parse("0.5Gi") == parse("512Mi") && parse("1k") < parse("1Ki"));
    }

    proptest! {
        #[test]
        fn printing_keeps_the_amount(nanos in -i64::MAX..i64::MAX, format in 0..3) {
            let format = [Format::DecimalExponent, Format::BinarySi, Format::DecimalSi][format as usize];
            let quantity = Quantity { nanos: i128::from(nanos), format };
            let printed = quantity.to_string();
            prop_assert_eq!(parse(&printed), quantity);
            prop_assert_eq!(parse(&printed).to_string(), printed);
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.eEinumkKMGTPi]{0,40}") {
            let _ = canonical(&text);
        }
    }
}
