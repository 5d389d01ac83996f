//! The list of RPCs as Rust, made from the descriptors: two enums (one message each way, or streams), and for each RPC its
//! path, its names and its messages. `src/rpc.rs` includes it.

use prost_types::FileDescriptorSet;

/// One RPC.
struct Row {
    service: String,
    name: String,
    variant: String,
    kind: &'static str,
    input: String,
    output: String,
}

impl Row {
    fn path(&self) -> String {
        format!("/{}/{}", self.service, self.name)
    }

    fn enumeration(&self) -> &'static str {
        if self.kind == "Unary" { "Unary" } else { "Streaming" }
    }
}

/// The source text. RPCs are numbered in the order of their services and names.
pub(crate) fn list(files: &FileDescriptorSet) -> String {
    let mut rows = rows(files);
    rows.sort_by(|one, other| (&one.service, &one.name).cmp(&(&other.service, &other.name)));
    let mut text = String::new();
    for enumeration in ["Unary", "Streaming"] {
        text.push_str(&enumerate(&rows, enumeration));
    }
    let count = rows.len();
    text.push_str(&format!("/// How many there are.\npub const COUNT: usize = {count};\n\n"));
    text.push_str("/// All of them, by service and name; the place of each is its number.\n");
    text.push_str("pub static METHODS: [Method; COUNT] = [\n");
    for row in &rows {
        let Row { service, name, variant, kind, input, output } = row;
        let (path, enumeration) = (row.path(), row.enumeration());
        text.push_str(&format!(
            "    Method {{ rpc: Rpc::{enumeration}({enumeration}::{variant}), path: {path:?}, service: {service:?}, \
             name: {name:?}, kind: Kind::{kind}, input: {input:?}, output: {output:?} }},\n"
        ));
    }
    text.push_str("];\n\n/// By length of the path, and paths of one length by their bytes.\n");
    text.push_str("static BY_PATH: [(&str, Rpc); COUNT] = [\n");
    rows.sort_by_key(|row| (row.path().len(), row.path()));
    for row in &rows {
        let (path, enumeration, variant) = (row.path(), row.enumeration(), &row.variant);
        text.push_str(&format!("    ({path:?}, Rpc::{enumeration}({enumeration}::{variant})),\n"));
    }
    text.push_str("];\n");
    text
}

/// An enum of the RPCs of one kind, with their numbers among all of them.
fn enumerate(rows: &[Row], enumeration: &str) -> String {
    let about = match enumeration {
        "Unary" => "RPCs with one message each way.",
        _ => "RPCs with many messages one way or both.",
    };
    let mut text = format!(
        "/// {about}\n#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]\n\
         #[repr(u8)]\npub enum {enumeration} {{\n"
    );
    for (number, row) in rows.iter().enumerate().filter(|(_, it)| it.enumeration() == enumeration) {
        let (path, variant) = (row.path(), &row.variant);
        text.push_str(&format!("    /// `{path}`.\n    {variant} = {number},\n"));
    }
    text.push_str("}\n\n");
    text
}

fn rows(files: &FileDescriptorSet) -> Vec<Row> {
    let mut rows = Vec::new();
    for file in &files.file {
        for service in &file.service {
            for method in &service.method {
                rows.push(Row {
                    service: format!("{}.{}", file.package(), service.name()),
                    name: method.name().to_owned(),
                    variant: variant(service.name(), method.name()),
                    kind: match (method.client_streaming(), method.server_streaming()) {
                        (false, false) => "Unary",
                        (false, true) => "ServerStream",
                        (true, false) => "ClientStream",
                        (true, true) => "BidiStream",
                    },
                    input: method.input_type().trim_start_matches('.').to_owned(),
                    output: method.output_type().trim_start_matches('.').to_owned(),
                });
            }
        }
    }
    rows
}

/// Service and method, without the service where the method's name begins with it.
fn variant(service: &str, method: &str) -> String {
    // `Watch` alone is etcd's; gRPC's health service has one, too.
    if method.starts_with(service) { method.to_owned() } else { format!("{service}{method}") }
}
