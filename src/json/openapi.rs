//! A description of the API over JSON for programs: an OpenAPI 3 document made from the descriptors.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::schema::{Field, Kind, MessageId, Schema};

/// A method, and its path.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// The path of its POST requests.
    pub path: &'static str,
    /// `package.Service`.
    pub service: &'static str,
    /// The method's name.
    pub method: &'static str,
    /// True if responses are lines, each with a `result`.
    pub streams: bool,
}

/// The document.
pub fn openapi(schema: &Schema, version: &str, operations: &[Operation]) -> Value {
    let mut used = BTreeSet::new();
    let paths: Map<_, _> = operations
        .iter()
        .filter_map(|it| Some((it.path.to_owned(), path(schema, it, &mut used)?)))
        .collect();
    let mut schemas = Map::new();
    schemas.insert("Error".to_owned(), error());
    let mut todo: Vec<_> = used.iter().copied().collect();
    while let Some(id) = todo.pop() {
        let message = schema.message(id);
        let mut properties = Map::new();
        for field in &message.fields {
            properties.insert(field.name.clone(), property(schema, field));
            if let Kind::Message(inner) = field.kind
                && used.insert(inner)
            {
                todo.push(inner);
            }
        }
        let mut object = json!({ "type": "object", "properties": properties });
        describe(&mut object, &message.comment);
        schemas.insert(message.name.clone(), object);
    }
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "etcd API over JSON",
            "version": version,
            "description": "Bytes are base64, 64-bit numbers are text, fields with default values are left out. \
                Names may also be written in camelCase, numbers as numbers, enums by number.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "apiKey", "in": "header", "name": "Authorization" },
            },
        },
        "security": [{}, { "token": [] }],
    })
}

fn path(schema: &Schema, it: &Operation, used: &mut BTreeSet<MessageId>) -> Option<Value> {
    let method = schema.described(it.service, it.method)?;
    used.extend([method.input, method.output]);
    let result = match it.streams {
        false => reference(schema, method.output),
        true => json!({
            "type": "object",
            "description": "One line of the answer.",
            "properties": {
                "result": reference(schema, method.output),
                "error": { "$ref": "#/components/schemas/Error" },
            },
        }),
    };
    let service = it.service.rsplit('.').next().unwrap_or(it.service);
    let mut post = json!({
        "operationId": format!("{service}_{}", it.path.trim_start_matches('/').replace('/', "_")),
        "tags": [service],
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": reference(schema, method.input) } },
        },
        "responses": {
            "200": {
                "description": "The answer.",
                "content": { "application/json": { "schema": result } },
            },
            "default": {
                "description": "Why there is none.",
                "content": {
                    "application/json": { "schema": { "$ref": "#/components/schemas/Error" } },
                },
            },
        },
    });
    describe(&mut post, &method.comment);
    Some(json!({ "post": post }))
}

fn error() -> Value {
    json!({
        "type": "object",
        "properties": {
            "code": { "type": "integer", "description": "A status code of gRPC." },
            "message": { "type": "string" },
        },
    })
}

fn reference(schema: &Schema, id: MessageId) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", schema.message(id).name) })
}

fn property(schema: &Schema, field: &Field) -> Value {
    let mut one = match field.kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Int32 => json!({ "type": "integer", "format": "int32" }),
        Kind::Uint32 => json!({ "type": "integer", "format": "int64" }),
        Kind::Int64 => json!({ "type": "string", "format": "int64" }),
        Kind::Uint64 => json!({ "type": "string", "format": "uint64" }),
        Kind::Text => json!({ "type": "string" }),
        Kind::Bytes => json!({ "type": "string", "format": "byte" }),
        Kind::Enum(id) => {
            let names: Vec<_> = schema.names_of(id).values.iter().map(|(name, _)| name).collect();
            json!({ "type": "string", "enum": names })
        }
        Kind::Message(id) => reference(schema, id),
    };
    if field.repeated {
        one = json!({ "type": "array", "items": one });
    }
    if !field.comment.is_empty() && one.get("$ref").is_some() {
        // A reference must stand alone.
        one = json!({ "allOf": [one] });
    }
    describe(&mut one, &field.comment);
    one
}

fn describe(what: &mut Value, comment: &str) {
    if !comment.is_empty()
        && let Some(object) = what.as_object_mut()
    {
        object.insert("description".to_owned(), Value::from(comment));
    }
}
