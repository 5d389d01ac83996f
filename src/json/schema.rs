//! The structure of messages, from their descriptors, in a form with fast lookups.

use std::collections::BTreeMap;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// A message of a [`Schema`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MessageId(usize);

/// An enum of a [`Schema`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EnumId(usize);

/// The type of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Text,
    Bytes,
    Enum(EnumId),
    Message(MessageId),
}

impl Kind {
    /// The name in protobuf.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Text => "string",
            Self::Bytes => "bytes",
            Self::Enum(_) => "enum",
            Self::Message(_) => "message",
        }
    }

    /// True if repeated values are written one after the other, without tags.
    pub(super) const fn is_packed(self) -> bool {
        !matches!(self, Self::Text | Self::Bytes | Self::Message(_))
    }
}

/// One field.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) json_name: String,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
    /// Index of the message's oneof to which it belongs.
    pub(super) choice: Option<usize>,
    pub(super) comment: String,
}

/// One message: fields in the order of their declaration, in which they are written.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    /// The name with its package.
    pub(super) name: String,
    pub(super) fields: Vec<Field>,
    /// Full names of its oneofs.
    pub(super) choices: Vec<String>,
    pub(super) comment: String,
    by_name: BTreeMap<String, usize>,
    by_number: BTreeMap<u32, usize>,
}

impl Message {
    /// The field of this name, in JSON or protobuf form.
    pub(super) fn named(&self, name: &str) -> Option<(usize, &Field)> {
        self.by_name.get(name).map(|at| (*at, &self.fields[*at]))
    }

    /// The field of this number.
    pub(super) fn numbered(&self, number: u32) -> Option<usize> {
        self.by_number.get(&number).copied()
    }
}

/// An enum: names of numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Enum {
    pub(super) values: Vec<(String, i32)>,
}

/// A method of a service.
#[derive(Clone, Debug)]
pub(super) struct Method {
    pub(super) input: MessageId,
    pub(super) output: MessageId,
    pub(super) comment: String,
}

/// All messages and methods.
#[derive(Debug, Default)]
pub struct Schema {
    messages: Vec<Message>,
    enums: Vec<Enum>,
    methods: BTreeMap<(String, String), Method>,
}

impl Schema {
    /// Reads descriptors. Fields of types that etcd's API does not use (floating point, maps, groups) are omitted.
    pub fn new(files: &FileDescriptorSet) -> Self {
        let mut names = Names::default();
        for file in &files.file {
            names.add(&format!(".{}", file.package()), &file.message_type, &file.enum_type);
        }
        let comments: Vec<_> = files.file.iter().map(Comments::of).collect();
        let mut schema =
            Self { enums: names.enums.iter().map(|it| values(it)).collect(), ..Self::default() };
        schema.messages.resize(names.messages.len(), Message::default());
        for (file, comments) in files.file.iter().zip(&comments) {
            let package = format!(".{}", file.package());
            for (at, message) in file.message_type.iter().enumerate() {
                schema.add(&names, &package, message, comments, &[4, at as i32]);
            }
            for (at, service) in file.service.iter().enumerate() {
                for (of, method) in service.method.iter().enumerate() {
                    let (Some(input), Some(output)) =
                        (names.message(method.input_type()), names.message(method.output_type()))
                    else {
                        continue;
                    };
                    let name = format!("{}.{}", file.package(), service.name());
                    let comment = comments.at(&[6, at as i32, 2, of as i32]);
                    let method_name = method.name().to_owned();
                    schema.methods.insert((name, method_name), Method { input, output, comment });
                }
            }
        }
        schema
    }

    fn add(
        &mut self,
        names: &Names<'_>,
        scope: &str,
        message: &DescriptorProto,
        comments: &Comments,
        path: &[i32],
    ) {
        let name = format!("{scope}.{}", message.name());
        for (at, nested) in message.nested_type.iter().enumerate() {
            self.add(names, &name, nested, comments, &[path, &[3, at as i32]].concat());
        }
        let Some(MessageId(id)) = names.message(&name) else { return };
        let full = name.trim_start_matches('.').to_owned();
        let oneofs = message.oneof_decl.iter();
        let mut made = Message {
            choices: oneofs.map(|it| format!("{full}.{}", it.name())).collect(),
            name: full,
            comment: comments.at(path),
            ..Message::default()
        };
        for (at, field) in message.field.iter().enumerate() {
            let Some(kind) = names.kind(field) else { continue };
            let comment = comments.at(&[path, &[2, at as i32]].concat());
            let place = made.fields.len();
            made.by_name.insert(field.name().to_owned(), place);
            made.by_number.insert(field.number().unsigned_abs(), place);
            made.fields.push(Field {
                name: field.name().to_owned(),
                json_name: field.json_name().to_owned(),
                number: field.number().unsigned_abs(),
                kind,
                repeated: field.label() == Label::Repeated,
                choice: field.oneof_index.map(|at| at as usize),
                comment,
            });
        }
        // JSON's names have precedence.
        let json_names = made.fields.iter().enumerate();
        let json_names: Vec<_> = json_names.map(|(at, it)| (it.json_name.clone(), at)).collect();
        made.by_name.extend(json_names);
        self.messages[id] = made;
    }

    pub(super) fn described(&self, service: &str, name: &str) -> Option<&Method> {
        self.methods.get(&(service.to_owned(), name.to_owned()))
    }

    pub(super) fn message(&self, MessageId(at): MessageId) -> &Message {
        &self.messages[at]
    }

    pub(super) fn names_of(&self, EnumId(at): EnumId) -> &Enum {
        &self.enums[at]
    }

    /// The message of this full name.
    pub fn find(&self, name: &str) -> Option<MessageId> {
        self.messages.iter().position(|message| message.name == name).map(MessageId)
    }
}

fn values(names: &EnumDescriptorProto) -> Enum {
    let values = names.value.iter().map(|value| (value.name().to_owned(), value.number()));
    Enum { values: values.collect() }
}

/// Messages and enums by their full names, which begin with a dot.
#[derive(Default)]
struct Names<'a> {
    messages: BTreeMap<String, MessageId>,
    enum_ids: BTreeMap<String, EnumId>,
    enums: Vec<&'a EnumDescriptorProto>,
}

impl<'a> Names<'a> {
    fn add(
        &mut self,
        scope: &str,
        messages: &'a [DescriptorProto],
        enums: &'a [EnumDescriptorProto],
    ) {
        for names in enums {
            self.enum_ids.insert(format!("{scope}.{}", names.name()), EnumId(self.enums.len()));
            self.enums.push(names);
        }
        for message in messages {
            let name = format!("{scope}.{}", message.name());
            self.add(&name, &message.nested_type, &message.enum_type);
            let id = MessageId(self.messages.len());
            self.messages.insert(name, id);
        }
    }

    fn message(&self, name: &str) -> Option<MessageId> {
        self.messages.get(name).copied()
    }

    fn kind(&self, field: &FieldDescriptorProto) -> Option<Kind> {
        match field.r#type() {
            Type::Bool => Some(Kind::Bool),
            Type::Int32 => Some(Kind::Int32),
            Type::Int64 => Some(Kind::Int64),
            Type::Uint32 => Some(Kind::Uint32),
            Type::Uint64 => Some(Kind::Uint64),
            Type::String => Some(Kind::Text),
            Type::Bytes => Some(Kind::Bytes),
            Type::Enum => self.enum_ids.get(field.type_name()).copied().map(Kind::Enum),
            Type::Message => self.message(field.type_name()).map(Kind::Message),
            Type::Double
            | Type::Float
            | Type::Group
            | Type::Fixed32
            | Type::Fixed64
            | Type::Sfixed32
            | Type::Sfixed64
            | Type::Sint32
            | Type::Sint64 => None,
        }
    }
}

/// Comments of a file, by the paths of the commented elements.
struct Comments(BTreeMap<Vec<i32>, String>);

impl Comments {
    fn of(file: &prost_types::FileDescriptorProto) -> Self {
        let places = file.source_code_info.iter().flat_map(|info| &info.location);
        let said = places.filter(|place| place.leading_comments.is_some());
        Self(said.map(|it| (it.path.clone(), it.leading_comments().trim().to_owned())).collect())
    }

    fn at(&self, path: &[i32]) -> String {
        self.0.get(path).cloned().unwrap_or_default()
    }
}
