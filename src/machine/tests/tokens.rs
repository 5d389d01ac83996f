//! Tokens follow users, passwords and authentication, in the same entry.

use basalt_proto::authpb::UserAddOptions;
use basalt_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest, RequestHeader,
    TokenIssueRequest, TokenSweepRequest,
};

use super::*;
use crate::command::AuthCommand;
use crate::machine::StepLimits;
use crate::token::{hash, letters, parse, token};

const TTL_MS: u64 = 300_000;

struct Fixture {
    machine: Machine<Memory>,
    next: LogIndex,
}

impl Fixture {
    /// With users root and alice, and authentication on.
    fn new() -> Self {
        Self::with(StepLimits::DEFAULT)
    }

    fn with(steps: StepLimits) -> Self {
        let machine = bootstrapped_with(&Config { steps, ..CONFIG });
        let mut it = Self { machine, next: FIRST };
        let level = FeatureLevel::AUTH.number();
        it.done(Command::FeatureLevelSet(FeatureLevelSetRequest { level }));
        for name in ["root", "alice"] {
            let (name, options) = (name.to_owned(), Some(UserAddOptions { no_password: true }));
            let add = AuthUserAddRequest { name, options, ..AuthUserAddRequest::default() };
            it.done(Command::Auth(AuthCommand::UserAdd(add)));
        }
        it.done(Command::Auth(AuthCommand::RoleAdd(AuthRoleAddRequest { name: "root".into() })));
        let (user, role) = ("root".into(), "root".into());
        it.done(Command::Auth(AuthCommand::UserGrantRole(AuthUserGrantRoleRequest { user, role })));
        it.done(Command::Auth(AuthCommand::Enable(AuthEnableRequest {})));
        it
    }

    /// An entry in the name of root.
    fn apply(&mut self, command: Command) -> Result<Reply, Refusal> {
        let entry = self.entry(&command);
        self.machine.apply(&entry).expect("it is applied").reply
    }

    fn entry(&mut self, command: &Command) -> Entry {
        let auth_revision = self.machine.permissions().revision();
        let (id, username) = (self.next, "root".to_owned());
        let header = RequestHeader { id, username, auth_revision };
        let data = command.to_payload_with(header);
        let entry = Entry { index: self.next, term: TERM, kind: EntryKind::Normal, data };
        self.next += 1;
        entry
    }

    fn done(&mut self, command: Command) {
        assert_eq!(self.apply(command.clone()), Ok(Reply::Done), "{command:?}");
    }

    fn issue_at(&mut self, user: &str, auth_revision: u64) -> Result<String, Refusal> {
        let letters = letters(&[self.next as u8; 32]);
        let hash = Bytes::copy_from_slice(&hash(letters.as_bytes()));
        let (user, expires_ms) = (user.to_owned(), TTL_MS);
        let issue = TokenIssueRequest { user, hash, expires_ms, auth_revision };
        let reply = self.apply(Command::TokenIssue(issue))?;
        let Reply::Token { index } = reply else { panic!("{reply:?} is no token") };
        Ok(token(&letters, index))
    }

    fn issue(&mut self, user: &str) -> Result<String, Refusal> {
        let revision = self.machine.permissions().revision();
        self.issue_at(user, revision)
    }

    /// Whose it is, on this member and after a restart.
    fn owner(&mut self, token: &str) -> Option<String> {
        self.machine.commit().expect("memory takes it");
        let restarted = restarted(&self.machine);
        let owner = |machine: &Machine<Memory>| {
            let (letters, index) = parse(token.as_bytes()).expect("a token");
            let token = machine.tokens().get(letters, index)?;
            token.try_use(0, TTL_MS).then(|| token.user().to_string())
        };
        let owners = [&self.machine, &restarted].map(owner);
        assert_eq!(owners[0], owners[1], "{token}");
        owners[0].clone()
    }
}

#[test]
fn a_token_is_made_for_a_password_that_is_still_the_one() {
    let mut it = Fixture::new();
    let before = it.machine.permissions().revision();
    let token = it.issue("alice").expect("she is there");
    assert_eq!(it.owner(&token).as_deref(), Some("alice"));
    assert_eq!(it.machine.permissions().revision(), before, "it changes no user");
    assert_eq!(it.issue("bob"), Err(Refusal::AuthFailed));
    it.done(Command::Auth(AuthCommand::RoleAdd(AuthRoleAddRequest { name: "more".into() })));
    assert_eq!(it.issue_at("alice", before), Err(Refusal::AuthOldRevision));
    assert_eq!(it.owner(&token).as_deref(), Some("alice"));
}

#[test]
fn tokens_go_with_passwords_users_and_authentication() {
    let mut it = Fixture::new();
    let (first, root) = (it.issue("alice").expect("a token"), it.issue("root").expect("a token"));
    let (name, password) = ("alice".to_owned(), String::new());
    let change =
        AuthUserChangePasswordRequest { name: name.clone(), password, ..Default::default() };
    it.done(Command::Auth(AuthCommand::UserChangePassword(change)));
    assert_eq!((it.owner(&first), it.owner(&root).as_deref()), (None, Some("root")));
    let revision = it.machine.permissions().revision();
    assert_eq!(it.machine.tokens().password_revision("alice"), revision);
    let second = it.issue("alice").expect("a token");
    it.done(Command::Auth(AuthCommand::UserDelete(AuthUserDeleteRequest { name: name.clone() })));
    assert_eq!((it.owner(&second), it.owner(&root).as_deref()), (None, Some("root")));
    // Another user of the same name is another one.
    let options = Some(UserAddOptions { no_password: true });
    let add = AuthUserAddRequest { name, options, ..AuthUserAddRequest::default() };
    it.done(Command::Auth(AuthCommand::UserAdd(add)));
    assert_eq!(it.owner(&second), None);
    it.done(Command::Auth(AuthCommand::Disable(AuthDisableRequest {})));
    assert_eq!(it.owner(&root), None);
    assert_eq!(it.issue("root"), Err(Refusal::AuthNotEnabled));
}

#[test]
fn a_sweep_removes_what_expired() {
    let mut it = Fixture::new();
    let token = it.issue("alice").expect("a token");
    it.done(Command::TokenSweep(TokenSweepRequest { before_ms: TTL_MS }));
    assert_eq!(it.owner(&token).as_deref(), Some("alice"));
    it.done(Command::TokenSweep(TokenSweepRequest { before_ms: TTL_MS + 1 }));
    assert_eq!(it.owner(&token), None);
}

/// A hundred thousand tokens would take as long as a hundred thousand keys.
#[test]
fn many_tokens_are_dropped_in_steps() {
    const TOKENS: usize = 20;
    let disable = Command::Auth(AuthCommand::Disable(AuthDisableRequest {}));
    let delete =
        Command::Auth(AuthCommand::UserDelete(AuthUserDeleteRequest { name: "alice".into() }));
    let change = AuthUserChangePasswordRequest { name: "alice".into(), ..Default::default() };
    for command in [disable, delete, Command::Auth(AuthCommand::UserChangePassword(change))] {
        let steps = StepLimits { at_once_records: 10, stage_writes: 4 };
        let mut it = Fixture::with(steps);
        let tokens: Vec<_> = (0..TOKENS).map(|_| it.issue("alice").expect("a token")).collect();
        let root = it.issue("root").expect("a token");
        it.machine.commit().expect("memory takes it");
        let before = restarted(&it.machine);
        let entry = it.entry(&command);
        assert!(it.machine.begin(&entry).expect("it begins").is_none(), "it is large");
        let mut steps = 1;
        let applied = loop {
            let left = before.tokens.len() - it.machine.tokens.len();
            assert!(left <= 7 * (steps - 1), "{left} in {steps}");
            match it.machine.step(7).expect("it goes on") {
                Some(applied) => break applied,
                None => steps += 1,
            }
            let restarted = restarted(&it.machine);
            assert_eq!(restarted.tokens.len(), before.tokens.len(), "nothing of it is kept");
            assert!(restarted.permissions().is_enabled());
        };
        assert_eq!((applied.reply, steps), (Ok(Reply::Done), 3), "{command:?}");
        assert_eq!(applied.effects.len(), 1, "{command:?}");
        for token in &tokens {
            assert_eq!(it.owner(token), None, "{command:?}");
        }
        let is_off = matches!(command, Command::Auth(AuthCommand::Disable(_)));
        assert_eq!(it.owner(&root).is_none(), is_off);
        assert_eq!(restarted(&it.machine).permissions(), it.machine.permissions());
    }
}
