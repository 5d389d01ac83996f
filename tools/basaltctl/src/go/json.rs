//! JSON as Go's `encoding/json` writes structs: fields in their order, on one line, with the
//! characters escaped that could end a script tag.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gocompat::json::string;

/// A value whose fields stay in order.
#[derive(Clone)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// An object of these fields.
    pub(crate) fn object<const N: usize>(fields: [(&str, Self); N]) -> Self {
        Self::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// True if `omitempty` leaves it out.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Int(value) => *value == 0,
            Self::Uint(value) => *value == 0,
            Self::Text(value) => value.is_empty(),
            Self::Bytes(value) => value.is_empty(),
            Self::List(value) => value.is_empty(),
            // A pointer to an empty struct is not empty.
            Self::Object(_) => false,
        }
    }

    pub(crate) fn encode(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => out.push_str(&value.to_string()),
            Self::Uint(value) => out.push_str(&value.to_string()),
            Self::Text(value) => string(out, value, true),
            Self::Bytes(value) => string(out, &STANDARD.encode(value), true),
            Self::List(values) => {
                out.push('[');
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    value.write(out);
                }
                out.push(']');
            }
            Self::Object(fields) => {
                out.push('{');
                for (at, (name, value)) in fields.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    string(out, name, true);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_as_go_does() {
        let value = Json::object([
            ("b", Json::text("<a&b>\u{1}\"")),
            ("a", Json::List(vec![Json::Int(-1), Json::Bytes(b"key".to_vec())])),
        ]);
        assert_eq!(value.encode(), r#"{"b":"\u003ca\u0026b\u003e\u0001\"","a":[-1,"a2V5"]}"#);
    }
}
