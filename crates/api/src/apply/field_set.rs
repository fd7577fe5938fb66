//! Sets of paths into an object, and their form on the wire (`fieldsV1`).

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
};

use serde_json::{Map, Value};

use crate::schema::Schema;

/// One step into an object.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum PathElement {
    /// A field of an object or a key of a map: `f:name`.
    Field(String),
    /// The item of a list whose key fields have these values, as JSON with sorted names: `k:{"name":"a"}`.
    Key(String),
    /// The item of a set with this value, as JSON: `v:"a"`.
    Value(String),
    /// The item at this place: `i:0`.
    Index(usize),
}

impl PathElement {
    pub fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    pub fn key(values: &BTreeMap<String, Value>) -> Self {
        Self::Key(serde_json::to_string(values).unwrap_or_default())
    }

    pub fn value(value: &Value) -> Self {
        Self::Value(value.to_string())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("unknown path element type: {text:?}");
        match text.split_once(':').ok_or_else(wrong)? {
            ("f", name) => Ok(Self::field(name)),
            ("k", json) => {
                let values: BTreeMap<String, Value> = serde_json::from_str(json).map_err(|error| error.to_string())?;
                Ok(Self::key(&values))
            }
            ("v", json) => {
                let value: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
                Ok(Self::value(&value))
            }
            ("i", index) => index.parse().map(Self::Index).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(json) => format!("k:{json}"),
            Self::Value(json) => format!("v:{json}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

impl Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(json) => {
                let values: BTreeMap<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let pairs: Vec<String> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", pairs.join(","))
            }
            Self::Value(json) => write!(f, "[={json}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A path as messages print it: `.spec.containers[name="a"].image`.
pub fn print_path(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}

/// A set of paths, as a tree.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FieldSet(BTreeMap<PathElement, Node>);

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Node {
    /// Whether the path that ends here is in the set.
    member: bool,
    below: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    /// A set of plain field paths: `[&["metadata", "name"], &["status"]]`.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Vec<PathElement> = path.iter().map(|name| PathElement::field(name)).collect();
            set.insert(&path);
        }
        set
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a path; the empty one is never a member.
    pub fn insert(&mut self, path: &[PathElement]) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut set = self;
        for parent in parents {
            set = &mut set.0.entry(parent.clone()).or_default().below;
        }
        set.0.entry(last.clone()).or_default().member = true;
    }

    /// Adds what is below `element`, and `element` itself where it is a member.
    pub(super) fn graft(&mut self, element: PathElement, member: bool, below: FieldSet) {
        if member || !below.is_empty() {
            self.0.insert(element, Node { member, below });
        }
    }

    pub fn contains(&self, path: &[PathElement]) -> bool {
        let Some((last, parents)) = path.split_last() else { return false };
        let mut set = self;
        for parent in parents {
            match set.0.get(parent) {
                Some(node) => set = &node.below,
                None => return false,
            }
        }
        set.contains_element(last)
    }

    pub(super) fn contains_element(&self, element: &PathElement) -> bool {
        self.0.get(element).is_some_and(|node| node.member)
    }

    /// What is below `element`, if anything is.
    pub(super) fn below(&self, element: &PathElement) -> Option<&FieldSet> {
        self.0.get(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        for (element, theirs) in &other.0 {
            let ours = union.0.entry(element.clone()).or_default();
            ours.member |= theirs.member;
            ours.below = ours.below.union(&theirs.below);
        }
        union
    }

    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let both = self.0.iter().filter_map(|(element, ours)| {
            let theirs = other.0.get(element)?;
            let node = Node { member: ours.member && theirs.member, below: ours.below.intersection(&theirs.below) };
            (!node.is_empty()).then(|| (element.clone(), node))
        });
        Self(both.collect())
    }

    /// Without exactly the paths of `other`; what is below them stays.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let rest = self.0.iter().filter_map(|(element, ours)| {
            let node = match other.0.get(element) {
                None => ours.clone(),
                Some(theirs) => {
                    let member = ours.member && !theirs.member;
                    Node { member, below: ours.below.difference(&theirs.below) }
                }
            };
            (!node.is_empty()).then(|| (element.clone(), node))
        });
        Self(rest.collect())
    }

    /// Without the paths of `other` and whatever is below them.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let rest = self.0.iter().filter_map(|(element, ours)| {
            let node = match other.0.get(element) {
                None => ours.clone(),
                Some(theirs) if theirs.member => return None,
                Some(theirs) => Node { member: ours.member, below: ours.below.without(&theirs.below) },
            };
            (!node.is_empty()).then(|| (element.clone(), node))
        });
        Self(rest.collect())
    }

    /// With the fields that lead to a member made members, too, where the schema gives them a name.
    #[must_use]
    pub(super) fn with_named_fields(&self, schema: Schema<'_>) -> Self {
        let nodes = self.0.iter().map(|(element, node)| {
            let below_schema = below_schema(schema, element);
            let named = matches!(element, PathElement::Field(name) if schema.is_named_field(name));
            let member = node.member || (named && !node.below.is_empty());
            (element.clone(), Node { member, below: node.below.with_named_fields(below_schema) })
        });
        Self(nodes.collect())
    }

    /// Every path, in order.
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut paths = Vec::new();
        self.collect_paths(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, at: &mut Vec<PathElement>, paths: &mut Vec<Vec<PathElement>>) {
        for (element, node) in &self.0 {
            at.push(element.clone());
            if node.member {
                paths.push(at.clone());
            }
            node.below.collect_paths(at, paths);
            at.pop();
        }
    }

    /// From `fieldsV1`. Fails with what is wrong with it.
    pub fn from_fields_v1(fields: &Value) -> Result<Self, String> {
        let Value::Object(fields) = fields else { return Err("fieldsV1 must be a map".into()) };
        let mut set = Self::default();
        for (text, value) in fields.iter().filter(|(text, _)| *text != ".") {
            let below = Self::from_fields_v1(value)?;
            let member = below.is_empty() || value.get(".").is_some();
            set.graft(PathElement::parse(text)?, member, below);
        }
        Ok(set)
    }

    pub fn to_fields_v1(&self) -> Value {
        let mut fields = Map::new();
        for (element, node) in &self.0 {
            let mut below = node.below.to_fields_v1();
            if let (true, Value::Object(below)) = (node.member && !node.below.is_empty(), &mut below) {
                below.insert(".".into(), Value::Object(Map::new()));
            }
            fields.insert(element.to_text(), below);
        }
        Value::Object(fields)
    }
}

/// The schema of what `element` leads to.
pub(super) fn below_schema<'a>(schema: Schema<'a>, element: &PathElement) -> Schema<'a> {
    match element {
        PathElement::Field(name) => schema.field_or_any(name),
        _ => schema.items(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_wire_form_reads_back() {
        let fields = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {
            "f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:finalizers": {"v:\"x\"": {}, "i:3": {}}}});
        let set = FieldSet::from_fields_v1(&fields).unwrap();
        assert_eq!(set.to_fields_v1(), fields);
        let paths: Vec<String> = set.paths().iter().map(|path| print_path(path)).collect();
        assert_eq!(
            paths,
            [
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].image",
                ".spec.finalizers[=\"x\"]",
                ".spec.finalizers[3]",
            ]
        );
        assert!(FieldSet::from_fields_v1(&json!({"x:a": {}})).is_err());
        assert!(FieldSet::from_fields_v1(&json!([])).is_err());
    }

    #[test]
    fn keys_are_compared_whatever_their_order() {
        let parse = |text: &str| PathElement::parse(text).unwrap();
        assert_eq!(
            parse(r#"k:{"protocol":"TCP","containerPort":80}"#),
            parse(r#"k:{"containerPort":80,"protocol":"TCP"}"#)
        );
    }

    fn sets() -> impl Strategy<Value = FieldSet> {
        let path = proptest::collection::vec("[abc]".prop_map(|name| PathElement::field(&name)), 1..4);
        proptest::collection::vec(path, 0..6).prop_map(|paths| {
            let mut set = FieldSet::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn encoding_is_reversible(set in sets()) {
            prop_assert_eq!(FieldSet::from_fields_v1(&set.to_fields_v1()), Ok(set));
        }

        #[test]
        fn set_algebra(a in sets(), b in sets()) {
            prop_assert_eq!(a.union(&b), b.union(&a));
            prop_assert_eq!(a.intersection(&b), b.intersection(&a));
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            prop_assert!(a.difference(&b).intersection(&b).is_empty());
            prop_assert_eq!(a.without(&b).difference(&a), FieldSet::default());
        }
    }
}
