//! JSON of a message as Go prints the struct: names and order from the wire contract, zero values
//! left out, enums and large numbers as numbers.

use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, ReflectMessage, Value};

use crate::go::json::Json;

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        DescriptorPool::decode(basalt_proto::DESCRIPTORS).expect("our own descriptors are whole")
    })
}

/// The message of that name in etcd's package.
pub(crate) fn json(name: &str, bytes: &[u8]) -> Json {
    let full = match name.contains('.') {
        true => name.to_owned(),
        false => format!("etcdserverpb.{name}"),
    };
    let descriptor = pool().get_message_by_name(&full);
    let descriptor = descriptor.unwrap_or_else(|| panic!("{full} is no message of ours"));
    let message = DynamicMessage::decode(descriptor, bytes);
    object(&message.expect("what was just encoded can be decoded"))
}

fn object(message: &DynamicMessage) -> Json {
    let mut fields = Vec::new();
    for field in message.descriptor().fields() {
        if !message.has_field(&field) {
            continue;
        }
        let value = value(&field, &message.get_field(&field));
        if !value.is_empty() {
            fields.push((field.name().to_owned(), value));
        }
    }
    // Go keeps the content of a oneof behind an interface of its own.
    match message.descriptor().full_name() {
        "etcdserverpb.ResponseOp" => Json::object([("Response", Json::Object(fields))]),
        _ => Json::Object(fields),
    }
}

fn value(field: &FieldDescriptor, value: &Value) -> Json {
    match value {
        Value::Bool(it) => Json::Bool(*it),
        Value::I32(it) | Value::EnumNumber(it) => Json::Int(i64::from(*it)),
        Value::I64(it) => Json::Int(*it),
        Value::U32(it) => Json::Uint(u64::from(*it)),
        Value::U64(it) => Json::Uint(*it),
        Value::String(it) => Json::text(it),
        Value::Bytes(it) => Json::Bytes(it.to_vec()),
        Value::Message(it) => object(it),
        Value::List(list) => Json::List(list.iter().map(|it| self::value(field, it)).collect()),
        Value::F32(_) | Value::F64(_) | Value::Map(_) => {
            unreachable!("etcd has no {} of this kind", field.full_name())
        }
    }
}
