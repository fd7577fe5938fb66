//! The query parameters of requests for resources, decoded and validated.

use api::{
    Errors, Object, Path, Status, object::ObjectExt, status::GroupResource, strict::FieldValidation,
    validation::meta::validate_field_manager,
};
use serde_json::Value;

/// The parameters of all verbs in one record. Numbers and words are checked, combinations are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub pretty: Option<bool>,
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    pub force: Option<bool>,
    pub label_selector: String,
    pub field_selector: String,
    pub watch: bool,
    pub allow_watch_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub resource_version: String,
    pub resource_version_match: String,
    pub timeout_seconds: Option<u64>,
    pub limit: usize,
    pub r#continue: String,
    /// `None`, `Metadata` or `Object`; for Tables.
    pub include_object: String,
    pub grace_period_seconds: Option<i64>,
    pub orphan_dependents: Option<bool>,
    pub propagation_policy: Option<String>,
}

impl Options {
    /// `kind` is what upstream calls these options: `CreateOptions`, `ListOptions`, ...
    pub fn parse(query: &str, kind: &str) -> Result<Self, Status> {
        let mut options = Self::default();
        let mut errors = Errors::default();
        let mut seen: Vec<String> = Vec::new();
        // Of repeated parameters the first counts, as for authorization (`RequestInfo`).
        for (name, value) in pairs(query) {
            if !seen.contains(&name) {
                options.set(&name, value, &mut errors)?;
                seen.push(name);
            }
        }
        validate_field_manager(&options.field_manager, &Path::new("fieldManager"), &mut errors);
        invalid_unless_empty(kind, errors)?;
        Ok(options)
    }

    fn set(&mut self, name: &str, value: String, errors: &mut Errors) -> Result<(), Status> {
        match name {
            "pretty" => self.pretty = Some(is_true(&value)),
            "dryRun" => self.dry_run = dry_run(&[value], errors),
            "fieldManager" => self.field_manager = value,
            "fieldValidation" => self.field_validation = field_validation(&value, errors),
            "force" => self.force = Some(is_true(&value)),
            "labelSelector" => self.label_selector = value,
            "fieldSelector" => self.field_selector = value,
            "watch" => self.watch = is_true(&value),
            "allowWatchBookmarks" => self.allow_watch_bookmarks = is_true(&value),
            "sendInitialEvents" => self.send_initial_events = Some(is_true(&value)),
            "resourceVersion" => self.resource_version = value,
            "resourceVersionMatch" => self.resource_version_match = value,
            "timeoutSeconds" => self.timeout_seconds = Some(number(&value)?),
            "limit" => self.limit = number(&value)?,
            "continue" => self.r#continue = value,
            "includeObject" => self.include_object = value,
            "gracePeriodSeconds" => self.grace_period_seconds = Some(number(&value)?),
            "orphanDependents" => self.orphan_dependents = Some(is_true(&value)),
            "propagationPolicy" => self.propagation_policy = Some(value),
            _ => {}
        }
        Ok(())
    }
}

/// 422 about a record of options, as upstream reports them.
pub fn invalid_unless_empty(kind: &str, errors: Errors) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", kind, "", errors)) }
}

/// `dryRun` may only be `All`.
pub fn dry_run(values: &[String], errors: &mut Errors) -> bool {
    if values.iter().any(|value| value != "All") {
        errors.not_supported(&Path::new("dryRun"), values, &["All"]);
    }
    !values.is_empty()
}

fn field_validation(value: &str, errors: &mut Errors) -> FieldValidation {
    FieldValidation::parse(value).unwrap_or_else(|| {
        errors.not_supported(&Path::new("fieldValidation"), value, &["", "Ignore", "Strict", "Warn"]);
        FieldValidation::Warn
    })
}

/// How a query parameter that is a flag reads; present means true.
pub fn is_true(value: &str) -> bool {
    !matches!(value, "false" | "False" | "0")
}

fn number<N: std::str::FromStr>(value: &str) -> Result<N, Status> {
    value.parse().map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax")))
}

/// The decoded pairs of a query string.
pub fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(&name.replace('+', " ")), percent_decode(&value.replace('+', " ")))
    })
}

/// `%41` reads `A`; what is no escape stays.
pub fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// What a DELETE asks for, from its body or its query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub orphan_dependents: Option<bool>,
    pub propagation_policy: Option<String>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: bool,
}

impl DeleteOptions {
    pub fn from_query(options: &Options) -> Self {
        Self {
            grace_period_seconds: options.grace_period_seconds,
            orphan_dependents: options.orphan_dependents,
            propagation_policy: options.propagation_policy.clone(),
            dry_run: options.dry_run,
            ..Self::default()
        }
    }

    pub fn from_body(body: &Value) -> Result<Self, Status> {
        let kind = body.get("kind").and_then(Value::as_str).unwrap_or("DeleteOptions");
        if kind != "DeleteOptions" {
            return Err(Status::bad_request("decoded object cannot be converted to DeleteOptions"));
        }
        let mut errors = Errors::default();
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let dry: Vec<String> =
            body.get("dryRun").and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default();
        let options = Self {
            grace_period_seconds: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            orphan_dependents: body.get("orphanDependents").and_then(Value::as_bool),
            propagation_policy: text("/propagationPolicy"),
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            dry_run: dry_run(&dry, &mut errors),
        };
        invalid_unless_empty("DeleteOptions", errors)?;
        Ok(options)
    }

    /// 409 unless the object is the one, and in the state, that the preconditions ask for.
    pub fn check(&self, resource: GroupResource<'_>, name: &str, object: &Object) -> Result<(), Status> {
        let (uid, version) = (object.uid(), object.resource_version());
        if let Some(wanted) = self.uid.as_deref().filter(|wanted| *wanted != uid) {
            let why = format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). \
                 The object might have been deleted and then recreated"
            );
            return Err(Status::conflict(resource, name, &why));
        }
        if let Some(wanted) = self.resource_version.as_deref().filter(|wanted| *wanted != version) {
            let why = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
                 ({version}). The object might have been modified"
            );
            return Err(Status::conflict(resource, name, &why));
        }
        Ok(())
    }

    pub fn validate(&self) -> Result<(), Status> {
        let mut errors = Errors::default();
        let policy = Path::new("propagationPolicy");
        if self.orphan_dependents.is_some() && self.propagation_policy.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.invalid(&policy, &self.propagation_policy, why);
        }
        if let Some(value) = &self.propagation_policy
            && !matches!(value.as_str(), "Foreground" | "Background" | "Orphan")
        {
            errors.not_supported(&policy, value, &["Foreground", "Background", "Orphan", "nil"]);
        }
        invalid_unless_empty("DeleteOptions", errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let options =
            Options::parse("labelSelector=a%3Db%2Cc&limit=5&watch=1&fieldValidation=Strict", "ListOptions").unwrap();
        assert_eq!((options.label_selector.as_str(), options.limit, options.watch), ("a=b,c", 5, true));
        assert_eq!(options.field_validation, FieldValidation::Strict);
    }

    #[test]
    fn only_all_is_a_dry_run() {
        assert!(Options::parse("dryRun=All", "CreateOptions").unwrap().dry_run);
        let status = Options::parse("dryRun=Some", "CreateOptions").unwrap_err();
        let expected = "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"";
        assert_eq!((status.code, status.message.as_str()), (422, expected));
    }

    #[test]
    fn delete_options_come_in_the_body_too() {
        let body = serde_json::json!({"kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": "u"}});
        let options = DeleteOptions::from_body(&body).unwrap();
        assert_eq!((options.grace_period_seconds, options.uid.as_deref()), (Some(0), Some("u")));
    }
}
