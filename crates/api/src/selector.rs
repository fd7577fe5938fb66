//! Label and field selectors: parsing, matching, printing (upstream: `labels`, `fields`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::{Errors, Path, names};

/// A text that is no selector; the sentence is upstream's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// How a requirement compares.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

use Operator::{DoesNotExist, DoubleEquals, Equals, Exists, GreaterThan, In, LessThan, NotEquals, NotIn};

/// One condition on one label.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Exactly one for comparisons, none for existence.
    pub values: BTreeSet<String>,
}

impl Requirement {
    /// Fails where key, operator and values do not go together.
    pub fn new(key: &str, operator: Operator, values: BTreeSet<String>) -> Result<Self, SelectorError> {
        let mut errors = Errors::default();
        let (key_path, values_path) = (Path::new("key"), Path::new("values"));
        for group in [names::is_qualified_name(key)] {
            if !group.is_empty() {
                errors.invalid(&key_path, key, group.join("; "));
            }
        }
        let wrong_count = match operator {
            In | NotIn if values.is_empty() => Some("for 'in', 'notin' operators, values set can't be empty"),
            Equals | DoubleEquals | NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Exists | DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            GreaterThan | LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        if let Some(sentence) = wrong_count {
            errors.invalid(&values_path, &values, sentence);
        }
        for (index, value) in values.iter().enumerate() {
            if matches!(operator, GreaterThan | LessThan) && value.parse::<i64>().is_err() {
                let sentence = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.invalid(&values_path.index(index), value, sentence);
            }
            let sentences = names::is_valid_label_value(value);
            if !sentences.is_empty() {
                errors.invalid(&values_path.index(index).key(key), value, sentences.join("; "));
            }
        }
        match errors.is_empty() {
            true => Ok(Self { key: key.to_owned(), operator, values }),
            false => Err(SelectorError(errors.summary())),
        }
    }

    /// Whether a label with this value (`None`: no such label) satisfies it.
    pub fn allows(&self, value: Option<&str>) -> bool {
        match self.operator {
            In | Equals | DoubleEquals => value.is_some_and(|value| self.values.contains(value)),
            NotIn | NotEquals => value.is_none_or(|value| !self.values.contains(value)),
            Exists => value.is_some(),
            DoesNotExist => value.is_none(),
            GreaterThan | LessThan => {
                let limit = self.values.first().and_then(|limit| limit.parse::<i64>().ok());
                match (value.and_then(|value| value.parse::<i64>().ok()), limit) {
                    (Some(value), Some(limit)) if self.operator == GreaterThan => value > limit,
                    (Some(value), Some(limit)) => value < limit,
                    _ => false,
                }
            }
        }
    }
}

impl Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let values = self.values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match self.operator {
            Equals => write!(f, "{key}={values}"),
            DoubleEquals => write!(f, "{key}=={values}"),
            NotEquals => write!(f, "{key}!={values}"),
            In => write!(f, "{key} in ({values})"),
            NotIn => write!(f, "{key} notin ({values})"),
            GreaterThan => write!(f, "{key}>{values}"),
            LessThan => write!(f, "{key}<{values}"),
            Exists => write!(f, "{key}"),
            DoesNotExist => write!(f, "!{key}"),
        }
    }
}

/// A label selector: all requirements hold. Prints as upstream, sorted by key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Selector {
    /// Selects nothing, whatever the labels: the selector that is absent.
    Nothing,
    All(Vec<Requirement>),
}

impl Selector {
    pub fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// From the form of query parameters: `app=web,tier in (a,b),!old`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Parser { tokens: lex(text), position: 0 }.selector()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self::All(requirements))
    }

    /// From the form in objects. `None` selects nothing, an empty selector everything.
    pub fn from_api(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::Nothing) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Equals, [value.clone()].into())?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => In,
                "NotIn" => NotIn,
                "Exists" => Exists,
                "DoesNotExist" => DoesNotExist,
                other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
            };
            let values = expression.values.iter().flatten().cloned().collect();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self::All(requirements))
    }

    /// All of these labels with these values (Service, ReplicationController). Nothing is validated.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let equals = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Equals,
            values: [value.clone()].into(),
        };
        Self::All(labels.iter().map(equals).collect())
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// The same for labels held in another form.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::Nothing => false,
            Self::All(requirements) => {
                requirements.iter().all(|requirement| requirement.allows(label(&requirement.key)))
            }
        }
    }

    /// Whether it lets everything through.
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::All(requirements) if requirements.is_empty())
    }

    pub fn requirements(&self) -> &[Requirement] {
        match self {
            Self::Nothing => &[],
            Self::All(requirements) => requirements,
        }
    }
}

impl Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements().iter().enumerate() {
            write!(f, "{}{requirement}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Token {
    /// A key or a value; `in` and `notin` too.
    Word(String),
    /// `=`, `==`, `!=`, `!`, `>`, `<`, `(`, `)`, `,`
    Symbol(&'static str),
    /// Symbols that are none.
    Wrong(String),
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word(text) | Self::Wrong(text) => text,
            Self::Symbol(text) => text,
            Self::End => "",
        }
    }
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", ">", "<", "(", ")", ","];

fn lex(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let special = |c: char| "=!(),<>".contains(c);
    let blank = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    loop {
        rest = rest.trim_start_matches(blank);
        if rest.is_empty() {
            tokens.push(Token::End);
            return tokens;
        }
        let length = if rest.starts_with(special) {
            match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) => {
                    tokens.push(Token::Symbol(symbol));
                    symbol.len()
                }
                None => {
                    tokens.push(Token::Wrong(rest.to_owned()));
                    rest.len()
                }
            }
        } else {
            let end = rest.find(|c| special(c) || blank(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            end
        };
        rest = &rest[length..];
    }
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
}

fn unexpected<T>(token: &Token, expected: &str) -> Result<T, SelectorError> {
    Err(SelectorError(format!("found '{}', expected: {expected}", token.text())))
}

impl Parser {
    fn peek(&self) -> Token {
        self.tokens.get(self.position).cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        self.position += 1;
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::End => return Ok(requirements),
                Token::Word(_) | Token::Symbol("!") => {}
                other => return unexpected(&other, "!, identifier, or 'end of string'"),
            }
            let requirement = self.requirement();
            requirements.push(requirement.map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?);
            match self.next() {
                Token::End => return Ok(requirements),
                Token::Symbol(",") => match self.peek() {
                    Token::Word(_) | Token::Symbol("!") => {}
                    other => return unexpected(&other, "identifier after ','"),
                },
                other => return unexpected(&other, "',' or 'end of string'"),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = self.peek() == Token::Symbol("!");
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key,
            other => return unexpected(&other, "identifier"),
        };
        let sentences = names::is_qualified_name(&key);
        if !sentences.is_empty() {
            return Err(SelectorError(format!("<nil>: Invalid value: {key:?}: {}", sentences.join("; "))));
        }
        if negated {
            return Requirement::new(&key, DoesNotExist, BTreeSet::new());
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Requirement::new(&key, Exists, BTreeSet::new());
        }
        let operator = self.operator()?;
        let values = if matches!(operator, In | NotIn) { self.values()? } else { [self.value()?].into() };
        Requirement::new(&key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        let token = self.next();
        Ok(match token.text() {
            "in" => In,
            "notin" => NotIn,
            "=" => Equals,
            "==" => DoubleEquals,
            "!=" => NotEquals,
            ">" => GreaterThan,
            "<" => LessThan,
            _ => return unexpected(&token, "in, notin, =, ==, !=, gt, lt"),
        })
    }

    /// The value of a comparison; none is the empty one.
    fn value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Token::End | Token::Symbol(",") => return Ok(String::new()),
            _ => {}
        }
        match self.next() {
            Token::Word(value) => Ok(value),
            other => unexpected(&other, "identifier"),
        }
    }

    /// `(a,b)`; between, before and after commas the empty value is meant.
    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        match self.next() {
            Token::Symbol("(") => {}
            other => return Err(SelectorError(format!("found '{}' expected: '('", other.text()))),
        }
        let mut values = BTreeSet::new();
        loop {
            let value = match self.peek() {
                Token::Word(value) => {
                    self.next();
                    value
                }
                Token::Symbol("," | ")") => String::new(),
                other => return unexpected(&other, "',', ')' or identifier"),
            };
            values.insert(value);
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(values),
                other => return unexpected(&other, "',' or ')'"),
            }
        }
    }
}

/// One condition on one field.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FieldRequirement {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

/// A field selector: all requirements hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FieldSelector(Vec<FieldRequirement>);

impl FieldSelector {
    /// `metadata.name=a,status.phase!=Running`; `\`, `,` and `=` in values are escaped by `\`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = split_terms(text);
        terms.sort_unstable();
        let mut requirements = Vec::new();
        for term in terms.into_iter().filter(|term| !term.is_empty()) {
            let wrong = || SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let (at, operator) = term
                .char_indices()
                .find_map(|(at, _)| {
                    ["!=", "==", "="].iter().find(|op| term[at..].starts_with(**op)).map(|op| (at, *op))
                })
                .ok_or_else(wrong)?;
            let value = unescape(&term[at + operator.len()..])?;
            requirements.push(FieldRequirement { field: term[..at].to_owned(), equal: operator != "!=", value });
        }
        Ok(Self(requirements))
    }

    /// `field=value`
    pub fn equal(field: &str, value: &str) -> Self {
        Self(vec![FieldRequirement { field: field.into(), equal: true, value: value.into() }])
    }

    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.0
    }

    /// The value that `field` must have, if one is required.
    pub fn exact(&self, field: &str) -> Option<&str> {
        let required = self.0.iter().find(|requirement| requirement.equal && requirement.field == field)?;
        Some(&required.value)
    }

    /// A field that is not among `fields` reads as empty.
    pub fn matches<N: AsRef<str>, V: AsRef<str>>(&self, fields: &[(N, V)]) -> bool {
        self.0.iter().all(|requirement| {
            let field = fields.iter().find(|(name, _)| name.as_ref() == requirement.field);
            let value = field.map_or("", |(_, value)| value.as_ref());
            (value == requirement.value) == requirement.equal
        })
    }
}

impl Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, FieldRequirement { field, equal, value }) in self.0.iter().enumerate() {
            let value = value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=");
            write!(f, "{}{field}{}{value}", if index == 0 { "" } else { "," }, if *equal { "=" } else { "!=" })?;
        }
        Ok(())
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => value.push(c),
                next => {
                    let sequence: String = ['\\'].into_iter().chain(next).collect();
                    let sentence = format!("invalid field selector: invalid escape sequence: {sequence}");
                    return Err(SelectorError(sentence));
                }
            },
            // Upstream prints the code point.
            ',' | '=' => {
                let code = u32::from(c);
                return Err(SelectorError(format!("invalid field selector: unescaped character in value: {code}")));
            }
            c => value.push(c),
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn selectors_match_and_print_as_upstream() {
        let pod = labels(&[("app", "web"), ("tier", "b"), ("n", "7")]);
        let rows = [
            ("", "", true),
            ("app=web", "app=web", true),
            ("app==web, tier!=a", "app==web,tier!=a", true),
            ("tier in (c, b,a)", "tier in (a,b,c)", true),
            ("tier notin (b)", "tier notin (b)", false),
            ("missing notin (b)", "missing notin (b)", true),
            ("x,app", "app,x", false),
            ("!x,!app", "!app,!x", false),
            ("n>6,n<8", "n>6,n<8", true),
            ("app=", "app=", false),
            ("x in ()", "x in ()", false),
            ("x in (,a)", "x in (,a)", false),
            ("in in (in)", "in in (in)", false),
        ];
        for (text, printed, matches) in rows {
            let selector = Selector::parse(text).unwrap();
            assert_eq!(selector.to_string(), printed);
            assert_eq!(selector.matches(&pod), matches, "{text}");
        }
    }

    #[test]
    fn errors_are_upstreams() {
        let rows = [
            ("a,", "found '', expected: identifier after ','"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("x in a", "unable to parse requirement: found 'a' expected: '('"),
            ("x in (a", "unable to parse requirement: found '', expected: ',' or ')'"),
            (
                "n>a",
                "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must \
                 be an integer",
            ),
        ];
        for (text, sentence) in rows {
            assert_eq!(Selector::parse(text).unwrap_err().0, sentence, "{text}");
        }
        assert!(
            Selector::parse("-a=b")
                .unwrap_err()
                .0
                .starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\"")
        );
    }

    #[test]
    fn absent_selects_nothing_and_empty_everything() {
        assert!(!Selector::from_api(None).unwrap().matches(&labels(&[])));
        assert!(Selector::from_api(Some(&LabelSelector::default())).unwrap().matches(&labels(&[])));
    }

    #[test]
    fn field_selectors() {
        let fields = [("metadata.name", "a"), ("status.phase", "x=y")];
        for (text, printed, matches) in [
            ("metadata.name=a", "metadata.name=a", true),
            ("status.phase==x\\=y,metadata.name!=b", "metadata.name!=b,status.phase=x\\=y", true),
            ("spec.nodeName=", "spec.nodeName=", true),
            ("metadata.name!=a", "metadata.name!=a", false),
        ] {
            let selector = FieldSelector::parse(text).unwrap();
            assert_eq!(selector.to_string(), printed);
            assert_eq!(selector.matches(&fields), matches, "{text}");
        }
        let error = |text: &str| FieldSelector::parse(text).unwrap_err().0;
        assert_eq!(error("abc"), "invalid selector: 'abc'; can't understand 'abc'");
        assert_eq!(error("a=b\\c"), "invalid field selector: invalid escape sequence: \\c");
        assert_eq!(error("a=b=c"), "invalid field selector: unescaped character in value: 61");
    }

    proptest! {
        #[test]
        fn parsing_what_is_printed_is_identity(
            keys in proptest::collection::btree_set("[a-z]{1,4}(\\.x/[a-z]{1,3})?", 0..4),
            operator in 0usize..9,
            values in proptest::collection::btree_set("[a-z0-9]{0,3}", 1..4),
        ) {
            let operators = [Equals, DoubleEquals, NotEquals, In, NotIn, Exists, DoesNotExist, Equals, NotIn];
            let operator = operators[operator];
            let values: BTreeSet<String> = match operator {
                Exists | DoesNotExist => BTreeSet::new(),
                In | NotIn => values,
                _ => values.into_iter().take(1).collect(),
            };
            let requirement = |key: &String| Requirement::new(key, operator, values.clone()).unwrap();
            let selector = Selector::All(keys.iter().map(requirement).collect());
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}", symbols in "[a!=,()<> \\\\]{0,20}") {
            for text in [text, symbols] {
                let _ = (Selector::parse(&text), FieldSelector::parse(&text));
            }
        }
    }
}
