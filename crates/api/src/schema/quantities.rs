//! Bringing quantities into canonical form, wherever the schema says that one is.

use serde_json::Value;

use super::{Schema, Type};
use crate::{Errors, Path, quantity};

/// Rewrites every quantity of `value` as upstream would store it (`1.5` as `"1500m"`). A text that is no
/// quantity stays as it is and is reported, as upstream's decoder would.
pub fn canonicalize_quantities(value: &mut Value, schema: Schema<'_>) -> Errors {
    let mut errors = Errors::default();
    walk(value, schema, &Path::default(), &mut errors);
    errors
}

fn walk(value: &mut Value, schema: Schema<'_>, path: &Path, errors: &mut Errors) {
    match (schema.r#type(), value) {
        (Type::Quantity, value @ (Value::String(_) | Value::Number(_))) => {
            let text = match &*value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            match quantity::canonical(&text) {
                Ok(canonical) => *value = Value::String(canonical),
                Err(error) => errors.invalid(path, text, error.to_string()),
            }
        }
        (Type::Object | Type::Map, Value::Object(map)) => {
            for (name, value) in map {
                if let Some(schema) = schema.field(name).filter(|schema| may_hold_quantities(*schema)) {
                    walk(value, schema, &path.child(name), errors);
                }
            }
        }
        (Type::List, Value::Array(items)) if may_hold_quantities(schema.items()) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, schema.items(), &path.index(index), errors);
            }
        }
        _ => {}
    }
}

fn may_hold_quantities(schema: Schema<'_>) -> bool {
    matches!(schema.r#type(), Type::Quantity | Type::Object | Type::Map | Type::List)
}
