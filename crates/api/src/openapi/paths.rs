//! Paths and operations, derived from a kind's verbs and subresources.

use serde_json::{Map, Value, json};

use super::{Dialect, group_version_kind, group_version_path, types};
use crate::{Descriptor, kind::Subresource};

const JSON: &str = "application/json";
const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// A query parameter: name, type, description.
type Query = (&'static str, &'static str, &'static str);

const PRETTY: Query = ("pretty", "string", "If 'true', then the output is pretty printed.");
const DRY_RUN: Query = (
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. Valid values are: - All: all dry run stages \
     will be processed",
);
const FIELD_MANAGER: Query = (
    "fieldManager",
    "string",
    "fieldManager is a name associated with the actor or entity that is making these changes.",
);
const FIELD_VALIDATION: Query = (
    "fieldValidation",
    "string",
    "fieldValidation instructs the server on how to handle objects in the request (POST/PUT/PATCH) containing unknown \
     or duplicate fields. Valid values are: Ignore, Warn, Strict.",
);
const FORCE: Query = (
    "force",
    "boolean",
    "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields.",
);
const DELETION: [Query; 3] = [
    ("gracePeriodSeconds", "integer", "The duration in seconds before the object should be deleted."),
    ("orphanDependents", "boolean", "Deprecated: please use the PropagationPolicy."),
    (
        "propagationPolicy",
        "string",
        "Whether and how garbage collection will be performed: Orphan, Background, Foreground.",
    ),
];
const SELECTION: [Query; 10] = [
    ("allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\"."),
    ("continue", "string", "The continue option should be set when retrieving more results from the server."),
    ("fieldSelector", "string", "A selector to restrict the list of returned objects by their fields."),
    ("labelSelector", "string", "A selector to restrict the list of returned objects by their labels."),
    ("limit", "integer", "limit is a maximum number of responses to return for a list call."),
    (
        "resourceVersion",
        "string",
        "resourceVersion sets a constraint on what resource versions a request may be served from.",
    ),
    ("resourceVersionMatch", "string", "resourceVersionMatch determines how resourceVersion is applied to list calls."),
    ("sendInitialEvents", "boolean", "`sendInitialEvents=true` may be set together with `watch=true`."),
    ("timeoutSeconds", "integer", "Timeout for the list/watch call."),
    ("watch", "boolean", "Watch for changes to the described resources and return them as a stream."),
];

/// What one operation does.
struct Operation<'a> {
    /// `x-kubernetes-action`
    action: &'static str,
    verb: &'static str,
    /// What the operation's id and description call its object.
    object: String,
    description: String,
    queries: Vec<Query>,
    /// Definition of the body, with its media types.
    body: Option<(&'a str, &'a [&'static str])>,
    /// Definition of the answer; `None`: text.
    answer: Option<String>,
    group_version_kind: Value,
}

/// Adds the paths of a kind.
pub(super) fn add(paths: &mut Map<String, Value>, kind: &Descriptor, dialect: Dialect) {
    let root = group_version_path(kind);
    let collection = match kind.is_namespaced() {
        true => format!("{root}/namespaces/{{namespace}}/{}", kind.plural),
        false => format!("{root}/{}", kind.plural),
    };
    let item = format!("{collection}/{{name}}");
    let namespaced = if kind.is_namespaced() { "Namespaced" } else { "" };
    let object = format!("{namespaced}{}", kind.kind);
    let mut put = |path: &str, method: &str, operation: Operation<'_>| {
        let entry =
            paths.entry(path.to_owned()).or_insert_with(|| json!({"parameters": path_parameters(path, dialect)}));
        entry[method] = operation.render(kind, dialect);
    };
    for (verb, (method, operation)) in object_operations(kind, &object) {
        if kind.verbs.iter().any(|known| known == verb) {
            let on_item = matches!(verb, "get" | "update" | "patch" | "delete");
            put(if on_item { &item } else { &collection }, method, operation);
        }
    }
    if kind.is_namespaced() && kind.verbs.iter().any(|verb| verb == "list") {
        let mut everywhere = list(kind, format!("{}ForAllNamespaces", kind.kind));
        everywhere.description = format!("list or watch objects of kind {}", kind.kind);
        put(&format!("{root}/{}", kind.plural), "get", everywhere);
    }
    for subresource in &kind.subresources {
        let path = format!("{item}/{}", subresource.name);
        for (method, operation) in subresource_operations(kind, subresource, &object) {
            put(&path, method, operation);
        }
    }
}

fn own_kind(kind: &Descriptor) -> Value {
    group_version_kind(&kind.group, &kind.version, &kind.kind)
}

fn list(kind: &Descriptor, object: String) -> Operation<'static> {
    Operation {
        action: "list",
        verb: "list",
        object,
        description: format!("list or watch objects of kind {}", kind.kind),
        queries: [&[PRETTY], SELECTION.as_slice()].concat(),
        body: None,
        answer: Some(types::list_name(kind)),
        group_version_kind: own_kind(kind),
    }
}

/// The operations on objects themselves, by the verb that allows them.
fn object_operations<'a>(kind: &'a Descriptor, object: &str) -> Vec<(&'static str, (&'static str, Operation<'a>))> {
    let writing = [PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
    let operation =
        |action, verb, what: &str, queries: &[Query], body: Option<(&'a str, &'a [&'static str])>| Operation {
            action,
            verb,
            object: object.to_owned(),
            description: format!("{what} {}", kind.kind),
            queries: queries.to_vec(),
            body,
            answer: Some(kind.schema_name.clone()),
            group_version_kind: own_kind(kind),
        };
    let own: Option<(&str, &[&str])> = Some((&kind.schema_name, &[JSON]));
    let options: Option<(&str, &[&str])> = Some((types::DELETE_OPTIONS, &[JSON]));
    let patching = [writing.as_slice(), &[FORCE]].concat();
    let deleting = [&[PRETTY, DRY_RUN], DELETION.as_slice()].concat();
    let status = |operation: Operation<'a>| Operation { answer: Some(types::STATUS.into()), ..operation };
    let collection = Operation {
        object: format!("Collection{object}"),
        queries: [deleting.as_slice(), &SELECTION].concat(),
        ..operation("deletecollection", "delete", "delete collection of", &[], options)
    };
    vec![
        ("list", ("get", list(kind, object.to_owned()))),
        ("create", ("post", operation("post", "create", "create a", &writing, own))),
        ("deletecollection", ("delete", status(collection))),
        ("get", ("get", operation("get", "read", "read the specified", &[PRETTY], None))),
        ("update", ("put", operation("put", "replace", "replace the specified", &writing, own))),
        (
            "patch",
            (
                "patch",
                operation(
                    "patch",
                    "patch",
                    "partially update the specified",
                    &patching,
                    Some((types::PATCH, &PATCH_TYPES)),
                ),
            ),
        ),
        ("delete", ("delete", status(operation("delete", "delete", "delete a", &deleting, options)))),
    ]
}

fn subresource_operations<'a>(
    kind: &'a Descriptor,
    subresource: &'a Subresource,
    object: &str,
) -> Vec<(&'static str, Operation<'a>)> {
    let (group, version) = types::group_version(kind, subresource);
    let definition = types::exchanged(kind, subresource);
    let mut name = subresource.name.to_owned();
    name.get_mut(..1).map(str::make_ascii_uppercase);
    let writing = [PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
    let known = |verb: &str| match verb {
        "get" => Some(("get", "get", "read", vec![PRETTY])),
        "update" => Some(("put", "put", "replace", writing.to_vec())),
        "patch" => Some(("patch", "patch", "patch", [writing.as_slice(), &[FORCE]].concat())),
        "create" => Some(("post", "post", "create", writing.to_vec())),
        "delete" => Some(("delete", "delete", "delete", vec![PRETTY])),
        _ => None,
    };
    let mut operations = Vec::new();
    for (method, action, verb, queries) in subresource.verbs.iter().filter_map(|verb| known(verb)) {
        let body: Option<(&str, &[&str])> = match (method, definition) {
            ("patch", Some(_)) => Some((types::PATCH, &PATCH_TYPES)),
            ("put" | "post", Some(definition)) => Some((definition, &[JSON])),
            _ => None,
        };
        // What is no object is a connection.
        let (action, verb) = match definition {
            None if subresource.name != "log" => ("connect", connect_verb(method)),
            _ => (action, verb),
        };
        operations.push((
            method,
            Operation {
                action,
                verb,
                object: format!("{object}{name}"),
                description: format!("{verb} {} of the specified {}", subresource.name, kind.kind),
                queries,
                body,
                answer: definition.map(str::to_owned),
                group_version_kind: group_version_kind(group, version, subresource.kind),
            },
        ));
    }
    operations
}

fn connect_verb(method: &str) -> &'static str {
    match method {
        "get" => "connectGet",
        "put" => "connectPut",
        "patch" => "connectPatch",
        "delete" => "connectDelete",
        _ => "connectPost",
    }
}

/// `Apps`, `RbacAuthorization`; `Core` for the group without a name.
fn group_in_id(group: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) };
    let mut id = String::new();
    for word in group.split(['.', '-']) {
        let mut chars = word.chars();
        id.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        id.push_str(chars.as_str());
    }
    id
}

fn path_parameters(path: &str, dialect: Dialect) -> Value {
    let mut parameters = Vec::new();
    for (placeholder, name, description) in [
        ("{name}", "name", "name of the object"),
        ("{namespace}", "namespace", "object name and auth scope, such as for teams and projects"),
    ] {
        if path.contains(placeholder) {
            let mut parameter = parameter(name, "string", description, "path", dialect);
            parameter["required"] = true.into();
            parameters.push(parameter);
        }
    }
    parameters.into()
}

fn parameter(name: &str, r#type: &str, description: &str, place: &str, dialect: Dialect) -> Value {
    let mut parameter = json!({"name": name, "in": place, "description": description});
    match dialect {
        Dialect::V2 => {
            parameter["type"] = r#type.into();
            parameter["uniqueItems"] = true.into();
        }
        Dialect::V3 => parameter["schema"] = json!({"type": r#type, "uniqueItems": true}),
    }
    parameter
}

impl Operation<'_> {
    fn render(self, kind: &Descriptor, dialect: Dialect) -> Value {
        let group = group_in_id(&kind.group);
        let mut version = kind.version.clone();
        version.get_mut(..1).map(str::make_ascii_uppercase);
        let mut tag = format!("{group}_{}", kind.version);
        tag.get_mut(..1).map(str::make_ascii_lowercase);
        let query = |(name, r#type, description): &Query| parameter(name, r#type, description, "query", dialect);
        let mut operation = json!({
            "description": self.description,
            "operationId": format!("{}{group}{version}{}", self.verb, self.object),
            "tags": [tag],
            "parameters": self.queries.iter().map(query).collect::<Vec<Value>>(),
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": self.group_version_kind,
        });
        let answer = self.answer.map_or_else(|| json!({"type": "string"}), |name| dialect.reference(&name));
        let produces = if answer.get("type").is_some() { "text/plain" } else { JSON };
        let mut responses = json!({"401": {"description": "Unauthorized"}});
        for (code, description) in success_codes(self.action) {
            responses[*code] = match dialect {
                Dialect::V2 => json!({"description": description, "schema": answer}),
                Dialect::V3 => json!({"description": description, "content": {produces: {"schema": answer}}}),
            };
        }
        operation["responses"] = responses;
        if dialect == Dialect::V2 {
            operation["schemes"] = json!(["https"]);
            operation["produces"] = json!([produces]);
            operation["consumes"] = json!(self.body.map_or(&["*/*"] as &[&str], |(_, media)| media));
        }
        if let Some((definition, media_types)) = self.body {
            let schema = dialect.reference(definition);
            let required = self.action != "delete" && self.action != "deletecollection";
            match (dialect, &mut operation["parameters"]) {
                (Dialect::V2, Value::Array(parameters)) => {
                    parameters.push(json!({"in": "body", "name": "body", "required": required, "schema": schema}));
                }
                _ => {
                    let content: Map<String, Value> =
                        media_types.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect();
                    operation["requestBody"] = json!({"content": content, "required": required});
                }
            }
        }
        operation
    }
}

fn success_codes(action: &str) -> &'static [(&'static str, &'static str)] {
    match action {
        "post" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
        "put" | "patch" => &[("200", "OK"), ("201", "Created")],
        "delete" => &[("200", "OK"), ("202", "Accepted")],
        _ => &[("200", "OK")],
    }
}
