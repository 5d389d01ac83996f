//! Each request in the name of each identity, by gRPC and as JSON, beside a live etcd: the same code, text and answer.

use std::fs;
use std::sync::LazyLock;

use basalt::json::{Schema, Spelling, Values};
use basalt::rpc::rule;
use basalt_proto::DESCRIPTORS;
use basalt_proto::authpb::permission::Type;
use basalt_proto::etcdserverpb::{
    AuthUserDeleteRequest, AuthUserDeleteResponse, LeaseGrantRequest, LeaseGrantResponse,
    PutRequest, PutResponse,
};
use basalt_proto::rpc::{Kind, METHODS, Method};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use serde_json::Value;
use tokio::time::timeout;
use tonic::Status;

use super::shapes::{SHAPES, Shape};
use super::{Administrator, PATIENCE, login};
use crate::compare::runtime;
use crate::gateway::{ask, framed};
use crate::process::{self, Scratch, Server, Setup};
use crate::tls::certificates::{Authority, Wanted};
use crate::tls::identities::Holder;
use crate::wire::{LEASE_GRANT, PUT, Wire};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(&FileDescriptorSet::decode(DESCRIPTORS).expect("made by the build"))
});

/// Members of answers that are each server's own.
const HIDDEN: [&str; 6] =
    ["cluster_id", "member_id", "raft_term", "raft_index", "token", "create_time"];

/// The identity of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Identity {
    Nobody,
    /// With a token that nobody has.
    BadToken,
    /// A user with a few permissions.
    User,
    Root,
    /// With the token of a user that was deleted since.
    Deleted,
    /// With the certificate of a user with a few permissions.
    Certified,
    /// With a certificate in which there is a name that no user has.
    CertifiedStranger,
    /// With a certificate without a name.
    CertifiedNameless,
}

/// Those who have tokens, or nothing.
const IDENTITIES: [Identity; 5] =
    [Identity::Nobody, Identity::BadToken, Identity::User, Identity::Root, Identity::Deleted];

/// Those who have certificates, and their names.
const CERTIFIED: [(Identity, &str); 3] = [
    (Identity::Certified, "c"),
    (Identity::CertifiedStranger, "stranger"),
    (Identity::CertifiedNameless, ""),
];

/// How tokens are made; each is a server of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tokens {
    Simple,
    Jwt,
}

const PASSWORD: &str = "pw";

/// One of the two servers.
struct Side {
    server: Server,
    wire: Wire,
    /// By identity.
    held: Vec<Option<String>>,
    /// Those with certificates, in the order of the identities.
    holders: Vec<(Holder, Wire)>,
}

impl Side {
    async fn start(setup: &Setup, holders: &[Holder]) -> Self {
        let mut server = Server::new(setup.clone());
        if !holders.is_empty() {
            // Nobody has no certificate.
            let both = format!("{},https://127.0.0.1:{}", server.endpoint(), server.port);
            server.set("listen-client-urls", &both);
        }
        server.start();
        let wires = holders.iter().map(|holder| (holder.clone(), holder.wire(&server)));
        let holders = wires.collect();
        let wire = Wire::new(&server.endpoint());
        for id in [1001, 1002, 1003] {
            let grant = LeaseGrantRequest { ttl: 600, id };
            let granted = wire.ask::<_, LeaseGrantResponse>(LEASE_GRANT, &grant).await;
            granted.expect("a lease");
        }
        for (key, lease) in [("r1", 0), ("w1", 0), ("b1", 1001), ("x1", 1002)] {
            let put =
                PutRequest { key: key.into(), value: "v".into(), lease, ..Default::default() };
            wire.ask::<_, PutResponse>(PUT, &put).await.expect("a key");
        }
        let administrator = Administrator(wire.clone());
        let granted =
            [(Type::Read, "r", "s"), (Type::Write, "w", "x"), (Type::Readwrite, "b", "c")];
        administrator.role("r", &granted).await;
        administrator.role("other", &[]).await;
        for user in ["u", "gone", "c"] {
            administrator.user(user, PASSWORD).await;
            administrator.give(user, "r").await;
        }
        administrator.user("without", "").await;
        administrator.enable(PASSWORD).await;
        let mut side = Self { server, wire, held: Vec::new(), holders };
        side.held = vec![None, Some("nonsense".to_owned()), None, None, None];
        side.held[4] = Some(login(&side.wire, "gone", PASSWORD).await.expect("a token"));
        side.log_in().await;
        let root = side.as_one(Identity::Root);
        let delete = AuthUserDeleteRequest { name: "gone".to_owned() };
        let path = "/etcdserverpb.Auth/UserDelete";
        root.ask::<_, AuthUserDeleteResponse>(path, &delete).await.expect("it is gone");
        side.log_in().await;
        side
    }

    /// New tokens for those who can have them: signed ones do not outlive a change of users or roles.
    async fn log_in(&mut self) {
        for (at, name) in [(2, "u"), (3, "root")] {
            let token = login(&self.wire, name, PASSWORD).await;
            self.held[at] = Some(token.expect("the password is right"));
        }
    }

    fn as_one(&self, identity: Identity) -> Wire {
        match (self.holder(identity), self.token(identity)) {
            (Some((_, wire)), _) => wire.clone(),
            (None, Some(token)) => self.wire.clone().with_token(token),
            (None, None) => self.wire.clone(),
        }
    }

    fn token(&self, identity: Identity) -> Option<&str> {
        self.held.get(identity as usize)?.as_deref()
    }

    fn holder(&self, identity: Identity) -> Option<&(Holder, Wire)> {
        let at = CERTIFIED.iter().position(|(certified, _)| *certified == identity)?;
        self.holders.get(at)
    }

    /// The answer to a request by gRPC.
    async fn call(&self, method: &Method, message: Bytes, identity: Identity) -> String {
        let (wire, path) = (self.as_one(identity), method.path);
        let answer = async {
            match method.kind {
                Kind::Unary => wire.call(path, message).await,
                Kind::ServerStream => {
                    let answer = wire.stream(path, message).await?.message().await?;
                    answer.ok_or_else(|| Status::unknown("client: no answer"))
                }
                Kind::BidiStream | Kind::ClientStream => {
                    let mut talk = wire.talk(path, message).await?;
                    let answer = talk.answers.message().await?;
                    answer.ok_or_else(|| Status::unknown("client: no answer"))
                }
            }
        };
        match timeout(PATIENCE, answer).await {
            Err(_) => "no answer in time".to_owned(),
            Ok(Err(status)) => format!("{:?}: {}", status.code(), status.message()),
            Ok(Ok(answer)) => {
                let output = SCHEMA.find(method.output).expect("it is described");
                let mut text = String::new();
                let printed = SCHEMA.print(output, &answer, Spelling::Plain, &mut text);
                printed.expect("it is such a message");
                evened(&text)
            }
        }
    }

    /// The answer to it as JSON, if there is a path for it.
    fn post(&self, method: &Method, body: &str, identity: Identity) -> Option<(String, String)> {
        let path = rule(method.rpc).routes.first()?;
        let token = self.token(identity);
        let header = token.map(|token| format!("Authorization: {token}\r\n")).unwrap_or_default();
        // All clients send it; etcd's gateway is the owner of the server's certificate to its own server without it.
        let header = format!("Accept: */*\r\n{header}");
        let lines = (method.kind != Kind::Unary).then_some(1);
        let bytes = framed("POST", path, &header, body.as_bytes());
        let answer = match self.holder(identity) {
            Some((holder, _)) => holder.ask(&self.server, &bytes, lines),
            None => ask(&self.server, &bytes, lines),
        };
        let answer = answer.evened();
        let body = answer.body.lines().next().map(evened).unwrap_or_default();
        Some((answer.status, body))
    }
}

/// Without what is each server's own.
fn evened(text: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    hide(&mut value);
    value.to_string()
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(members) => {
            // etcd tells the keys of a lease in any order.
            if let Some(Value::Array(keys)) = members.get_mut("keys") {
                keys.sort_by_key(Value::to_string);
            }
            members.retain(|name, _| !HIDDEN.contains(&name.as_str()));
            // The time that a lease has left falls between the two questions.
            if members.contains_key("grantedTTL") {
                members.remove("TTL");
            }
            members.values_mut().for_each(hide);
        }
        Value::Array(values) => values.iter_mut().for_each(hide),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

/// A body with its keys in base64, for one identity.
fn filled(body: &str, identity: Identity, gateway: bool) -> String {
    let number = format!("{}{}", identity as usize, if gateway { "g" } else { "" });
    let body = body.replace('#', &number);
    let mut pieces = body.split("\"@");
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (key, rest) = piece.split_once('"').expect("a key ends");
        filled += &format!("\"{}\"{rest}", BASE64_STANDARD.encode(key));
    }
    filled
}

fn encoded(method: &Method, body: &str) -> Bytes {
    let mut values = Values::default();
    values.push(body.as_bytes());
    let value = values.take().expect("it is JSON").expect("it is whole");
    let input = SCHEMA.find(method.input).expect("it is described");
    SCHEMA.encode(input, &value).expect("it is such a message").into()
}

/// Differences between the two, and how many answers were compared.
async fn compare(tokens: Tokens) -> (Vec<String>, usize) {
    let scratch = Scratch::new();
    let key = scratch.path().join("key");
    fs::write(&key, "a key of both servers").expect("a new file");
    let signed = format!("jwt,sign-method=HS256,priv-key={},ttl=10m", key.display());
    let authority = Authority::new(scratch.path(), "ca");
    let own = authority.issue("server", &Wanted::default());
    let setup = |binary| {
        let setup = Setup::new(binary).flag("bcrypt-cost", "4");
        match tokens {
            Tokens::Simple => setup
                .flag("cert-file", &own.certificate)
                .flag("key-file", &own.key)
                .flag("trusted-ca-file", &authority.file)
                .flag("client-cert-auth", "true"),
            Tokens::Jwt => setup.flag("auth-token", &signed),
        }
    };
    let (mut identities, mut holders) = (IDENTITIES.to_vec(), Vec::new());
    if tokens == Tokens::Simple {
        for (identity, name) in CERTIFIED {
            let wanted = Wanted { common_name: name, ..Wanted::default() };
            let pair = authority.issue(&format!("client-{name}"), &wanted);
            holders.push(Holder::new(&authority, &pair));
            identities.push(identity);
        }
    }
    let mut etcd = Side::start(&setup(process::etcd()), &holders).await;
    let mut basalt = Side::start(&setup(process::basalt()), &holders).await;
    let (mut differences, mut compared) = (Vec::new(), 0);
    for shape in SHAPES {
        for identity in identities.iter().copied() {
            for gateway in [false, true] {
                if tokens == Tokens::Jwt {
                    etcd.log_in().await;
                    basalt.log_in().await;
                }
                let Some(told) = both(&etcd, &basalt, shape, identity, gateway).await else {
                    continue;
                };
                compared += 1;
                if told[0] != told[1] {
                    let way = if gateway { "JSON" } else { "gRPC" };
                    differences.push(format!(
                        "{} {} as {identity:?} ({tokens:?}) by {way}\n  etcd   {}\n  basalt {}",
                        shape.path, shape.body, told[0], told[1]
                    ));
                }
            }
        }
    }
    (differences, compared)
}

fn method_of(shape: &Shape) -> &'static Method {
    METHODS.iter().find(|method| method.path == shape.path).expect("there is such an RPC")
}

/// etcd makes the id of a member of its URLs and the second, so that a second attempt within that second is refused for
/// the id, and a later one for the URLs.
fn without_the_second(told: String) -> String {
    told.replace("etcdserver: member ID already exist", "etcdserver: Peer URLs already exists")
}

/// The answers of both, as text.
async fn both(
    etcd: &Side,
    basalt: &Side,
    shape: &Shape,
    identity: Identity,
    gateway: bool,
) -> Option<[String; 2]> {
    let method = method_of(shape);
    let body = filled(shape.body, identity, gateway);
    let mut told = Vec::new();
    for side in [etcd, basalt] {
        if gateway {
            let (status, body) = side.post(method, &body, identity)?;
            let is_hidden = shape.is_opaque && status.contains("200");
            told.push(if is_hidden { status } else { format!("{status} {body}") });
        } else {
            let answer = side.call(method, encoded(method, &body), identity).await;
            let is_hidden = shape.is_opaque && answer.starts_with('{');
            told.push(if is_hidden { "OK".to_owned() } else { answer });
        }
    }
    told.into_iter().map(without_the_second).collect::<Vec<_>>().try_into().ok()
}

#[test]
fn each_request_of_each_identity_is_answered_as_by_etcd() {
    assert!(SHAPES.len() >= 60, "{} shapes are too few", SHAPES.len());
    let (differences, compared) = runtime().block_on(compare(Tokens::Simple));
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    assert!(compared > SHAPES.len() * (IDENTITIES.len() + CERTIFIED.len()), "{compared}");
}

#[test]
fn each_request_with_a_signed_token_is_answered_as_by_etcd() {
    let (differences, compared) = runtime().block_on(compare(Tokens::Jwt));
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    assert!(compared > SHAPES.len() * IDENTITIES.len(), "{compared}");
}
