//! The flags of the program; all others are the member's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dial::tls::Security;

use crate::kubernetes::Api;
use crate::members::{Login, Members};
use crate::names::{self, Names, Ordinal};
use crate::{Member, Pod};

/// Name, default, and what it is; in the order of the help.
const FLAGS: &[(&str, &str, &str)] = &[
    (
        "pod-peer-url",
        "",
        "URL of any pod's peer port, with {pod} or {ordinal} in the place of its name or number. Required.",
    ),
    ("pod-client-url", "", "The same of its client port. Required."),
    (
        "pod-listen",
        "0.0.0.0:2382",
        "Address at which the pods tell each other if they have data; all of a set use one port.",
    ),
    ("pod-founders", "3", "Number of pods that found the cluster; never changed afterwards."),
    ("pod-api", "", "URL of the API server; by default that of the environment of pods."),
    (
        "pod-account",
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "Directory of the service account's token.",
    ),
    ("pod-cacert", "", "CA of the members; by default --trusted-ca-file."),
    (
        "pod-cert",
        "",
        "Certificate to show to members; by default --client-cert-file or --cert-file.",
    ),
    ("pod-key", "", "Its key."),
    ("pod-user", "", "User that may change members, if users are needed."),
    ("pod-password-file", "", "File with the password of that user."),
];

/// The words of the command line.
pub enum Parsed {
    Help(String),
    Misuse(String),
    /// The flags of this program, and those of the member.
    Run(Values, Vec<String>),
}

/// The flags of this program that were given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Values(BTreeMap<&'static str, String>);

/// Takes the flags of this program out of a command line, without its first two words.
pub fn parse(words: &[String]) -> Parsed {
    let (mut values, mut rest) = (Values::default(), Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let bare = word.trim_start_matches('-');
        if word.starts_with('-') && ["h", "help"].contains(&bare) {
            return Parsed::Help(help());
        }
        let (name, given) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (bare, None),
        };
        let known = FLAGS.iter().find(|(flag, ..)| word.starts_with('-') && *flag == name);
        match known {
            Some((flag, ..)) => {
                let Some(value) = given.or_else(|| words.next().map(String::as_str)) else {
                    return Parsed::Misuse(format!("flag needs an argument: -{name}\n"));
                };
                values.0.insert(*flag, value.to_owned());
            }
            None if word.starts_with('-') && name.starts_with("pod-") => {
                return Parsed::Misuse(format!(
                    "flag provided but not defined: -{name}\n{}",
                    help()
                ));
            }
            None => rest.push(word.clone()),
        }
    }
    Parsed::Run(values, rest)
}

fn help() -> String {
    let mut text = String::from(
        "Usage:\n\n  basalt pod --name=SET-ORDINAL --pod-peer-url=URL --pod-client-url=URL [flags]\n    \
         Run a member as a pod of a StatefulSet: it joins its cluster, is promoted, and leaves when it is scaled away.\n    \
         The member gets all other flags; those about the cluster and the advertised URLs are added.\n\n",
    );
    for (name, default, about) in FLAGS {
        text.push_str(&format!("  --{name} '{default}'\n    \t{about}\n"));
    }
    text
}

impl Values {
    fn text(&self, name: &'static str) -> &str {
        let default = || FLAGS.iter().find(|(flag, ..)| *flag == name).map_or("", |it| it.1);
        self.0.get(name).map_or_else(default, String::as_str)
    }

    fn or<'a>(&'a self, name: &'static str, member: &'a str) -> String {
        if self.text(name).is_empty() { member } else { self.text(name) }.to_owned()
    }
}

/// The pod that the flags describe.
///
/// # Errors
/// A sentence about the first wrong one.
pub(crate) fn pod(values: &Values, member: Member, flags: Vec<String>) -> Result<Pod, String> {
    let (set, ordinal) = names::pod(&member.name)?;
    let listen = fill(values.text("pod-listen"), &member.name, ordinal);
    let port = listen.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let port = port.ok_or_else(|| format!("--pod-listen={listen}: expected HOST:PORT"))?;
    let names = Names::new(set, values.text("pod-peer-url"), values.text("pod-client-url"), port)?;
    let founders = values.text("pod-founders");
    let founders = founders.parse().ok().filter(|it| (1..=9).contains(it));
    let founders = founders.ok_or("--pod-founders: expected a number from 1 to 9")?;
    let is_secure = names.client_url(ordinal).starts_with("https://");
    let file = |own, of_member| if is_secure { values.or(own, of_member) } else { String::new() };
    let security = Security {
        cacert: file("pod-cacert", &member.ca),
        cert: file("pod-cert", &member.certificate),
        key: file("pod-key", &member.key),
        insecure_transport: !is_secure,
        ..Security::default()
    };
    let (user, password_file) = (values.text("pod-user"), values.text("pod-password-file"));
    if user.is_empty() != password_file.is_empty() {
        return Err("--pod-user and --pod-password-file belong together".to_owned());
    }
    let login = (!user.is_empty())
        .then(|| Login { user: user.to_owned(), password_file: password_file.to_owned() });
    let api = api(values).map(|url| {
        let account = PathBuf::from(values.text("pod-account"));
        Api { url, account, set: set.to_owned() }
    });
    let members = Members::new(security, login);
    Ok(Pod { ordinal, founders, names, listen, members, api, dirs: member.dirs, flags })
}

fn fill(template: &str, name: &str, ordinal: Ordinal) -> String {
    template.replace("{pod}", name).replace("{ordinal}", &ordinal.to_string())
}

/// The URL of the API server.
fn api(values: &Values) -> Option<String> {
    let given = values.text("pod-api");
    if !given.is_empty() {
        return Some(given.trim_end_matches('/').to_owned());
    }
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok()?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").ok()?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(format!("https://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn its_own_flags_are_told_from_the_members() {
        let all =
            words("--name=a-1 --pod-founders=5 --data-dir d -pod-user u --pod-password-file=p");
        let Parsed::Run(values, rest) = parse(&all) else { panic!("it runs") };
        assert_eq!(rest, words("--name=a-1 --data-dir d"));
        assert_eq!((values.text("pod-founders"), values.text("pod-user")), ("5", "u"));
        assert_eq!(values.text("pod-listen"), "0.0.0.0:2382");
        assert!(matches!(parse(&words("--pod-foo=1")), Parsed::Misuse(_)));
        assert!(matches!(parse(&words("--pod-user")), Parsed::Misuse(_)));
        assert!(matches!(parse(&words("--help")), Parsed::Help(_)));
    }

    #[test]
    fn the_certificates_are_the_members_unless_others_are_given() {
        let files = |scheme: &str, more: &str| {
            let urls = format!(
                "--pod-peer-url={scheme}://{{pod}}:1 --pod-client-url={scheme}://{{pod}}:2"
            );
            let Parsed::Run(values, flags) = parse(&words(&format!("{urls} {more}"))) else {
                panic!("it runs")
            };
            let member = Member {
                name: "a-1".into(),
                ca: "ca".into(),
                certificate: "cert".into(),
                key: "key".into(),
                ..crate::tests::member("a-1")
            };
            let pod = pod(&values, member, flags);
            pod.map(|it| it.members.files())
        };
        let texts = |a: &str, b: &str, c: &str| Ok([a, b, c].map(str::to_owned));
        assert_eq!(files("https", "--name=x"), texts("ca", "cert", "key"));
        assert_eq!(files("https", "--pod-cert=c --pod-key=k"), texts("ca", "c", "k"));
        assert_eq!(files("http", "--name=x"), texts("", "", ""));
        assert!(files("https", "--pod-user=u").is_err());
    }
}
