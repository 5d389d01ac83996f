//! Name servers for one zone, with faults.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};

const A: u16 = 1;
const CNAME: u16 = 5;
const SRV: u16 = 33;
/// The largest datagram that is sent.
const UDP_BYTES_MAX: usize = 1232;

const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const REFUSED: u8 = 5;

/// Data of one name server.
pub(super) struct Zone {
    /// Port of a server.
    pub(super) port: u16,
    /// Port of a server with a certificate for `tls.test`.
    pub(super) secure_port: u16,
    /// True for the name server that is queried first.
    pub(super) is_first: bool,
}

/// A record: its kind and its bytes.
type Record = (u16, Vec<u8>);

enum Answer {
    Records(Vec<Record>),
    Code(u8),
    /// Answer of a server that has no authority and no recursion.
    Lame,
    /// Shorter than its header's counts.
    Garbled,
    /// Answer to another query, followed by the right one.
    Forged(Vec<Record>),
    Nothing,
}

/// Answers from threads that live as long as the process.
pub(super) fn serve(address: &'static str, zone: &'static Zone) {
    let socket = UdpSocket::bind(address).expect("nobody else is here");
    let listener = TcpListener::bind(address).expect("nobody else is here");
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((size, from)) = socket.recv_from(&mut query) {
            for mut answer in zone.messages(&query[..size]) {
                if answer.len() > UDP_BYTES_MAX {
                    // No answers, but a count above zero.
                    answer = [&answer[..2], &[0x86, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
                    answer.extend_from_slice(question(&query[..size]));
                }
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|it| converse(zone, it));
        }
    });
}

/// Queries over TCP, until there are no more.
fn converse(zone: &Zone, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query)?;
        for answer in zone.messages(&query) {
            let length = u16::try_from(answer.len()).expect("it fits").to_be_bytes();
            stream.write_all(&[&length[..], &answer].concat())?;
        }
    }
}

impl Zone {
    fn answer(&self, name: &str, kind: u16) -> Answer {
        use Answer::{Code, Forged, Garbled, Lame, Nothing, Records};
        let all =
            |records: Vec<Vec<u8>>| Records(records.into_iter().map(|it| (SRV, it)).collect());
        let server = || service(0, 0, self.port, "s.one.test");
        match (name, kind) {
            ("s.one.test" | "tls.test", A) => Records(vec![(A, vec![127, 0, 0, 1])]),
            ("two.addresses.test", A) => {
                Records(vec![(A, vec![127, 0, 0, 9]), (A, vec![127, 0, 0, 1])])
            }
            ("s.one.test" | "tls.test" | "two.addresses.test", _) => Records(Vec::new()),
            ("_etcd-client._tcp.one.test" | "_etcd-client-blue._tcp.one.test", SRV) => {
                all(vec![server()])
            }
            ("_etcd-client-ssl._tcp.tls.test", SRV) => {
                all(vec![service(0, 0, self.secure_port, "s.one.test")])
            }
            // Nobody speaks TLS there.
            ("_etcd-client-ssl._tcp.plain.test", SRV) => all(vec![server()]),
            ("_etcd-client-ssl._tcp.apex.test", SRV) => {
                all(vec![service(0, 0, self.secure_port, "tls.test")])
            }
            ("_etcd-client._tcp.alias.test", SRV) => {
                let other = labels("_etcd-client._tcp.one.test");
                Records(vec![(CNAME, other), (SRV, server())])
            }
            ("_etcd-client._tcp.dead.test", SRV) => {
                all(vec![service(2, 0, self.port, "s.one.test"), service(1, 0, 1, "s.one.test")])
            }
            ("_etcd-client._tcp.many.test", SRV) => all(vec![
                service(30, 1, 4, "d.many.test"),
                service(10, 0, 2, "b.many.test"),
                service(20, 9, 3, "c.many.test"),
                service(0, 0, 1, "a.many.test"),
            ]),
            ("_etcd-client._tcp.large.test", SRV) => {
                let one = |it: u16| service(80 - it, 5, 2379, &format!("s{it}.large.test"));
                all((0..80).map(one).collect())
            }
            ("_etcd-client._tcp.equal.test", SRV) => all(vec![
                service(1, 20, 1, "a.equal.test"),
                service(1, 0, 2, "never.equal.test"),
                service(1, 20, 3, "b.equal.test"),
                service(2, 20, 4, "late.equal.test"),
            ]),
            ("_etcd-client._tcp.target.test", SRV) => {
                all(vec![server(), service(0, 0, 1, "no name.test")])
            }
            ("_etcd-client._tcp.forged.test", SRV) => Forged(vec![(SRV, server())]),
            ("_etcd-client._tcp.second.test", SRV) if !self.is_first => all(vec![server()]),
            ("_etcd-client._tcp.late.test", SRV) if !self.is_first => all(vec![server()]),
            (name, _) if name.ends_with("bare.test") => Records(Vec::new()),
            (name, _) if name.ends_with("failing.test") => Code(SERVER_FAILURE),
            (name, _) if name.ends_with("refused.test") => Code(REFUSED),
            (name, _) if name.ends_with(".second.test") => Code(SERVER_FAILURE),
            (name, _) if name.ends_with("lame.test") => Lame,
            (name, _) if name.ends_with("garbled.test") => Garbled,
            (name, _) if name.ends_with("silent.test") || name.ends_with(".late.test") => Nothing,
            _ => Code(NO_SUCH_NAME),
        }
    }

    /// The answers to a query, in turn.
    fn messages(&self, query: &[u8]) -> Vec<Vec<u8>> {
        let question = question(query);
        let (name, kind) = (spelled(question), question[question.len() - 3]);
        let message = |flags: u8, code: u8, records: &[Record]| {
            let count = u8::try_from(records.len()).expect("few");
            let mut out = query[..2].to_vec();
            out.extend([0x81 | flags, code, 0, 1, 0, count, 0, 0, 0, 0]);
            out.extend_from_slice(question);
            for (kind, bytes) in records {
                out.extend([0xc0, 12]);
                out.extend(kind.to_be_bytes());
                out.extend([0, 1, 0, 0, 0, 9]);
                out.extend(u16::try_from(bytes.len()).expect("short").to_be_bytes());
                out.extend_from_slice(bytes);
            }
            out
        };
        const RECURSES: u8 = 0x80;
        match self.answer(&name.to_lowercase(), kind.into()) {
            Answer::Records(records) => vec![message(4, RECURSES, &records)],
            Answer::Code(code) => vec![message(0, RECURSES | code, &[])],
            Answer::Lame => vec![message(0, 0, &[])],
            Answer::Garbled => {
                let mut cut = message(4, RECURSES, &[(SRV, vec![0; 9])]);
                cut.truncate(cut.len() - 4);
                vec![cut]
            }
            Answer::Forged(records) => {
                let good = message(4, RECURSES, &records);
                let mut forged = message(4, RECURSES | NO_SUCH_NAME, &[]);
                forged[0] ^= 1;
                vec![b"?".to_vec(), forged, good]
            }
            Answer::Nothing => Vec::new(),
        }
    }
}

/// The question of a query, which holds just one and whose name has no pointers.
fn question(query: &[u8]) -> &[u8] {
    let mut end = 12;
    while query[end] != 0 {
        end += 1 + usize::from(query[end]);
    }
    &query[12..end + 5]
}

fn spelled(question: &[u8]) -> String {
    let (mut at, mut parts) = (0, Vec::new());
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        parts.push(String::from_utf8_lossy(&question[at + 1..end]).into_owned());
        at = end;
    }
    parts.join(".")
}

fn labels(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).expect("short"));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}

fn service(priority: u16, weight: u16, port: u16, target: &str) -> Vec<u8> {
    let numbers = [priority, weight, port].map(u16::to_be_bytes).concat();
    [numbers, labels(target)].concat()
}
