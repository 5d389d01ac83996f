//! Members, endpoints, alarms.

use basalt_proto::etcdserverpb::{
    AlarmResponse, AlarmType, HashKvResponse, Member, MemberListResponse, ResponseHeader,
    StatusResponse,
};
use prost::Message;

use crate::go::json::Json;
use crate::print::{Answer, Printed, Printer, fields, human, message, out};

/// A response that lists members; only JSON shows them in hexadecimal.
pub(crate) struct Members {
    pub(crate) printed: Printed,
    pub(crate) header: Option<ResponseHeader>,
    /// The new member, if the response is about one.
    pub(crate) member: Option<Member>,
    pub(crate) members: Vec<Member>,
}

impl Answer for Members {
    fn simple(&self, printer: &Printer, out: &mut Vec<u8>) {
        self.printed.simple(printer, out);
    }

    fn json(&self, printer: &Printer) -> Json {
        match printer.hex {
            true => hex_json(self.header.as_ref(), self.member.as_ref(), &self.members),
            false => self.printed.json(printer),
        }
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        self.printed.protobuf()
    }
}

fn hex_json(header: Option<&ResponseHeader>, member: Option<&Member>, all: &[Member]) -> Json {
    let header = header.copied().unwrap_or_default();
    let mut parts = vec![
        ("cluster_id".to_owned(), Json::text(format!("{:x}", header.cluster_id))),
        ("member_id".to_owned(), Json::text(format!("{:x}", header.member_id))),
        ("revision".to_owned(), Json::Int(header.revision)),
        ("raft_term".to_owned(), Json::Uint(header.raft_term)),
    ];
    parts.retain(|(_, value)| !value.is_empty());
    let mut fields = vec![("header".to_owned(), Json::Object(parts))];
    if let Some(member) = member {
        fields.push(("member".to_owned(), hex_member(member)));
    }
    fields.push(("members".to_owned(), Json::List(all.iter().map(hex_member).collect())));
    Json::Object(fields)
}

fn hex_member(member: &Member) -> Json {
    let texts = |all: &[String]| Json::List(all.iter().map(Json::text).collect());
    let mut fields = vec![
        ("ID".to_owned(), Json::text(format!("{:x}", member.id))),
        ("name".to_owned(), Json::text(&member.name)),
        ("peerURLs".to_owned(), texts(&member.peer_ur_ls)),
        ("clientURLs".to_owned(), texts(&member.client_ur_ls)),
        ("isLearner".to_owned(), Json::Bool(member.is_learner)),
    ];
    fields.retain(|(_, value)| !value.is_empty());
    Json::Object(fields)
}

fn rows(out: &mut Vec<u8>, table: Option<(Vec<String>, Vec<Vec<String>>)>) {
    for row in table.into_iter().flat_map(|it| it.1) {
        out.extend_from_slice((row.join(", ") + "\n").as_bytes());
    }
}

fn heading(names: &[&str]) -> Vec<String> {
    names.iter().map(|it| (*it).to_owned()).collect()
}

impl Answer for MemberListResponse {
    fn simple(&self, _: &Printer, out: &mut Vec<u8>) {
        rows(out, self.table());
    }

    fn fields(&self, printer: &Printer, out: &mut String) -> bool {
        fields::header(out, self.header.as_ref(), printer.hex);
        for member in &self.members {
            fields::id(out, "ID", member.id, printer.hex);
            fields::text(out, "Name", &member.name);
            for url in &member.peer_ur_ls {
                fields::text(out, "PeerURL", url);
            }
            for url in &member.client_ur_ls {
                fields::text(out, "ClientURL", url);
            }
            fields::line(out, "IsLearner", member.is_learner);
            out.push('\n');
        }
        true
    }

    fn json(&self, printer: &Printer) -> Json {
        match printer.hex {
            true => hex_json(self.header.as_ref(), None, &self.members),
            false => message::json("MemberListResponse", &self.encode_to_vec()),
        }
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }

    fn table(&self) -> Option<(Vec<String>, Vec<Vec<String>>)> {
        let row = |it: &Member| {
            let status = if it.name.is_empty() { "unstarted" } else { "started" };
            vec![
                format!("{:x}", it.id),
                status.to_owned(),
                it.name.clone(),
                it.peer_ur_ls.join(","),
                it.client_ur_ls.join(","),
                it.is_learner.to_string(),
            ]
        };
        let names = ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];
        Some((heading(&names), self.members.iter().map(row).collect()))
    }
}

/// Health of one endpoint.
pub(crate) struct Health {
    pub(crate) endpoint: String,
    pub(crate) healthy: bool,
    pub(crate) took: String,
    pub(crate) error: String,
}

/// Health of all endpoints.
pub(crate) struct Healths(pub(crate) Vec<Health>);

impl Answer for Healths {
    fn simple(&self, _: &Printer, out: &mut Vec<u8>) {
        for it in &self.0 {
            let (endpoint, took, error) = (&it.endpoint, &it.took, &it.error);
            if error.is_empty() {
                let text = format!(
                    "{endpoint} is healthy: successfully committed proposal: took = {took}\n"
                );
                out.extend_from_slice(text.as_bytes());
            } else {
                out::error(&format!("{endpoint} is unhealthy: failed to commit proposal: {error}"));
            }
        }
    }

    fn fields(&self, _: &Printer, out: &mut String) -> bool {
        for it in &self.0 {
            fields::text(out, "Endpoint", &it.endpoint);
            fields::line(out, "Health", it.healthy);
            fields::line(out, "Took", &it.took);
            fields::line(out, "Error", &it.error);
            out.push('\n');
        }
        true
    }

    fn json(&self, _: &Printer) -> Json {
        list(self.0.iter().map(|it| {
            let mut fields = vec![
                ("endpoint".to_owned(), Json::text(&it.endpoint)),
                ("health".to_owned(), Json::Bool(it.healthy)),
                ("took".to_owned(), Json::text(&it.took)),
            ];
            if !it.error.is_empty() {
                fields.push(("error".to_owned(), Json::text(&it.error)));
            }
            Json::Object(fields)
        }))
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        None
    }

    fn table(&self) -> Option<(Vec<String>, Vec<Vec<String>>)> {
        let row = |it: &Health| {
            vec![it.endpoint.clone(), it.healthy.to_string(), it.took.clone(), it.error.clone()]
        };
        let names = ["endpoint", "health", "took", "error"];
        Some((heading(&names), self.0.iter().map(row).collect()))
    }
}

/// Go prints a list without elements as null.
fn list(items: impl Iterator<Item = Json>) -> Json {
    let items: Vec<Json> = items.collect();
    if items.is_empty() { Json::Null } else { Json::List(items) }
}

fn endpoint_json(endpoint: &str, field: &str, name: &str, response: &impl Message) -> Json {
    let response = message::json(name, &response.encode_to_vec());
    Json::object([("Endpoint", Json::text(endpoint)), (field, response)])
}

/// The status of each endpoint.
pub(crate) struct Statuses(pub(crate) Vec<(String, StatusResponse)>);

impl Answer for Statuses {
    fn simple(&self, _: &Printer, out: &mut Vec<u8>) {
        rows(out, self.table());
    }

    fn fields(&self, printer: &Printer, out: &mut String) -> bool {
        for (endpoint, it) in &self.0 {
            let downgrade = it.downgrade_info.clone().unwrap_or_default();
            fields::header(out, it.header.as_ref(), printer.hex);
            fields::text(out, "Version", &it.version);
            fields::text(out, "StorageVersion", &it.storage_version);
            fields::line(out, "DBSize", it.db_size);
            fields::line(out, "DBSizeInUse", it.db_size_in_use);
            fields::line(out, "DBSizeQuota", it.db_size_quota);
            fields::line(out, "Leader", it.leader);
            fields::line(out, "IsLearner", it.is_learner);
            fields::line(out, "RaftIndex", it.raft_index);
            fields::line(out, "RaftTerm", it.raft_term);
            fields::line(out, "RaftAppliedIndex", it.raft_applied_index);
            fields::line(out, "Errors", format_args!("[{}]", it.errors.join(" ")));
            fields::text(out, "Endpoint", endpoint);
            fields::text(out, "DowngradeTargetVersion", &downgrade.target_version);
            fields::line(out, "DowngradeEnabled", downgrade.enabled);
            out.push('\n');
        }
        true
    }

    fn json(&self, _: &Printer) -> Json {
        list(
            self.0
                .iter()
                .map(|(endpoint, it)| endpoint_json(endpoint, "Status", "StatusResponse", it)),
        )
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        None
    }

    fn table(&self) -> Option<(Vec<String>, Vec<Vec<String>>)> {
        const NAMES: &[&str] = &[
            "endpoint",
            "ID",
            "version",
            "storage version",
            "db size",
            "in use",
            "percentage not in use",
            "quota",
            "is leader",
            "is learner",
            "raft term",
            "raft index",
            "raft applied index",
            "errors",
            "downgrade target version",
            "downgrade enabled",
        ];
        Some((heading(NAMES), self.0.iter().map(status_row).collect()))
    }
}

fn status_row((endpoint, it): &(String, StatusResponse)) -> Vec<String> {
    let member = it.header.unwrap_or_default().member_id;
    let downgrade = it.downgrade_info.clone().unwrap_or_default();
    let size = |bytes: i64| human::bytes(u64::try_from(bytes).unwrap_or_default());
    let free = 100 - (it.db_size_in_use * 100).checked_div(it.db_size).unwrap_or(100);
    vec![
        endpoint.clone(),
        format!("{member:x}"),
        it.version.clone(),
        it.storage_version.clone(),
        size(it.db_size),
        size(it.db_size_in_use),
        format!("{free}%"),
        size(it.db_size_quota),
        (it.leader == member).to_string(),
        it.is_learner.to_string(),
        it.raft_term.to_string(),
        it.raft_index.to_string(),
        it.raft_applied_index.to_string(),
        it.errors.join(", "),
        downgrade.target_version,
        downgrade.enabled.to_string(),
    ]
}

/// The hash of each endpoint.
pub(crate) struct Hashes(pub(crate) Vec<(String, HashKvResponse)>);

impl Answer for Hashes {
    fn simple(&self, _: &Printer, out: &mut Vec<u8>) {
        rows(out, self.table());
    }

    fn fields(&self, printer: &Printer, out: &mut String) -> bool {
        for (endpoint, it) in &self.0 {
            fields::header(out, it.header.as_ref(), printer.hex);
            fields::text(out, "Endpoint", endpoint);
            fields::line(out, "Hash", it.hash);
            fields::line(out, "HashRevision", it.hash_revision);
            out.push('\n');
        }
        true
    }

    fn json(&self, _: &Printer) -> Json {
        list(
            self.0
                .iter()
                .map(|(endpoint, it)| endpoint_json(endpoint, "HashKV", "HashKVResponse", it)),
        )
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        None
    }

    fn table(&self) -> Option<(Vec<String>, Vec<Vec<String>>)> {
        let row = |(endpoint, it): &(String, HashKvResponse)| {
            vec![endpoint.clone(), it.hash.to_string(), it.hash_revision.to_string()]
        };
        Some((heading(&["endpoint", "hash", "hash_revision"]), self.0.iter().map(row).collect()))
    }
}

/// An alarm's name, or its number.
fn alarm_name(alarm: i32) -> String {
    AlarmType::try_from(alarm).map_or_else(|_| alarm.to_string(), |it| it.as_str_name().to_owned())
}

impl Answer for AlarmResponse {
    fn simple(&self, _: &Printer, out: &mut Vec<u8>) {
        for it in &self.alarms {
            let mut parts = Vec::new();
            if it.member_id != 0 {
                parts.push(format!("memberID:{}", it.member_id));
            }
            if it.alarm != 0 {
                parts.push(format!("alarm:{}", alarm_name(it.alarm)));
            }
            out.extend_from_slice((parts.join(" ") + "\n").as_bytes());
        }
    }

    fn fields(&self, printer: &Printer, out: &mut String) -> bool {
        fields::header(out, self.header.as_ref(), printer.hex);
        for it in &self.alarms {
            fields::id(out, "MemberID", it.member_id, printer.hex);
            fields::line(out, "AlarmType", alarm_name(it.alarm));
            out.push('\n');
        }
        true
    }

    fn json(&self, _: &Printer) -> Json {
        message::json("AlarmResponse", &self.encode_to_vec())
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}
