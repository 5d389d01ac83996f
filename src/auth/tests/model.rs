//! Histories of changes against a naive twin: the same outcomes, the same state, and the same after a restart.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

/// The permissions of a role: type, key and range end.
type Grants = Vec<(Type, Vec<u8>, Vec<u8>)>;

#[derive(Default)]
struct Model {
    enabled: bool,
    revision: u64,
    /// Roles, and true if there is a password.
    users: BTreeMap<String, (Vec<String>, bool)>,
    roles: BTreeMap<String, Grants>,
}

#[derive(Clone, Debug)]
enum Step {
    Enable,
    Disable,
    User(String, bool),
    DeleteUser(String),
    Password(String, bool),
    Role(String),
    DeleteRole(String),
    Give(String, String),
    Take(String, String),
    Grant(String, Type, Vec<u8>, Vec<u8>),
    Revoke(String, Vec<u8>, Vec<u8>),
}

impl Step {
    fn draw(random: &mut SmallRng) -> Self {
        let name = |random: &mut SmallRng| {
            ["root", "a", "b", "c", ""][random.random_range(0..5)].to_owned()
        };
        let key = |random: &mut SmallRng| {
            [&b"k"[..], b"l", b"m", b"", b"\0"][random.random_range(0..5)].to_vec()
        };
        let (user, role) = (name(random), name(random));
        let (from, to) = (key(random), key(random));
        let kind = [Type::Read, Type::Write, Type::Readwrite][random.random_range(0..3)];
        match random.random_range(0..22) {
            0 => Self::Enable,
            1 => Self::Disable,
            2..5 => Self::User(user, random.random()),
            5 => Self::DeleteUser(user),
            6..8 => Self::Password(user, random.random()),
            8..11 => Self::Role(role),
            11 => Self::DeleteRole(role),
            12..15 => Self::Give(user, role),
            15 => Self::Take(user, role),
            16..20 => Self::Grant(role, kind, from, to),
            _ => Self::Revoke(role, from, to),
        }
    }

    fn done(&self, bench: &mut Bench) -> Outcome {
        match self {
            Self::Enable => bench.enable(),
            Self::Disable => bench.disable(),
            Self::User(name, true) => bench.user(name),
            Self::User(name, false) => bench.user_without_password(name),
            Self::DeleteUser(name) => bench.delete_user(name),
            Self::Password(name, good) => bench.password(name, if *good { HASH } else { "*" }),
            Self::Role(name) => bench.role(name),
            Self::DeleteRole(name) => bench.delete_role(name),
            Self::Give(user, role) => bench.give(user, role),
            Self::Take(user, role) => bench.take(user, role),
            Self::Grant(role, kind, key, end) => bench.grant(role, *kind, key, end),
            Self::Revoke(role, key, end) => bench.revoke(role, key, end),
        }
    }
}

impl Model {
    /// True if anything changed, or the refusal.
    fn on(&mut self, step: &Step) -> Result<bool, Refusal> {
        let before = self.revision;
        let changed = self.changed(step)?;
        if changed && !matches!(step, Step::Enable) {
            self.revision = before + 1;
        }
        Ok(changed)
    }

    fn changed(&mut self, step: &Step) -> Result<bool, Refusal> {
        let is_root = |name: &str| name == ROOT;
        match step {
            Step::Enable if self.enabled => Ok(false),
            Step::Enable => {
                let (roles, _) = self.users.get(ROOT).ok_or(Refusal::RootUserNotExist)?;
                roles.iter().find(|it| is_root(it)).ok_or(Refusal::RootRoleNotExist)?;
                self.enabled = true;
                Ok(true)
            }
            Step::Disable => Ok(std::mem::take(&mut self.enabled)),
            Step::User(name, _) if name.is_empty() => Err(Refusal::UserEmpty),
            Step::User(name, _) if self.users.contains_key(name) => Err(Refusal::UserAlreadyExist),
            Step::User(name, has_password) => {
                self.users.insert(name.clone(), (Vec::new(), *has_password));
                Ok(true)
            }
            Step::DeleteUser(name) if self.enabled && is_root(name) => {
                Err(Refusal::InvalidAuthMgmt)
            }
            Step::DeleteUser(name) => {
                self.users.remove(name).map(|_| true).ok_or(Refusal::UserNotFound)
            }
            Step::Password(name, good) => {
                let (_, has_password) = self.users.get(name).ok_or(Refusal::UserNotFound)?;
                match !has_password || *good {
                    true => Ok(true),
                    false => Err(Refusal::PasswordForNoPasswordUser),
                }
            }
            Step::Role(name) if name.is_empty() => Err(Refusal::RoleEmpty),
            Step::Role(name) if self.roles.contains_key(name) => Err(Refusal::RoleAlreadyExist),
            Step::Role(name) => Ok(self.roles.insert(name.clone(), Vec::new()).is_none()),
            Step::DeleteRole(name) if self.enabled && is_root(name) => {
                Err(Refusal::InvalidAuthMgmt)
            }
            Step::DeleteRole(name) => {
                self.roles.remove(name).ok_or(Refusal::RoleNotFound)?;
                self.users.values_mut().for_each(|(roles, _)| roles.retain(|it| it != name));
                Ok(true)
            }
            Step::Give(user, role) => {
                let exists = is_root(role) || self.roles.contains_key(role);
                let (roles, _) = self.users.get_mut(user).ok_or(Refusal::UserNotFound)?;
                if !exists {
                    return Err(Refusal::RoleNotFound);
                }
                if roles.contains(role) {
                    return Ok(false);
                }
                roles.push(role.clone());
                roles.sort();
                Ok(true)
            }
            Step::Take(user, role) if self.enabled && is_root(user) && is_root(role) => {
                Err(Refusal::InvalidAuthMgmt)
            }
            Step::Take(user, role) => {
                let (roles, _) = self.users.get_mut(user).ok_or(Refusal::UserNotFound)?;
                let at = roles.iter().position(|it| it == role);
                roles.remove(at.ok_or(Refusal::RoleNotGranted)?);
                Ok(true)
            }
            Step::Grant(role, kind, key, end) => self.grant(role, *kind, key, end),
            Step::Revoke(role, key, end) => {
                let granted = self.roles.get_mut(role).ok_or(Refusal::RoleNotFound)?;
                let at = granted.iter().position(|(_, old, of)| (old, of) == (key, end));
                granted.remove(at.ok_or(Refusal::PermissionNotGranted)?);
                Ok(true)
            }
        }
    }

    fn grant(&mut self, role: &str, kind: Type, key: &[u8], end: &[u8]) -> Result<bool, Refusal> {
        if key.is_empty() || (!end.is_empty() && end != [0] && end <= key) {
            return Err(Refusal::InvalidAuthMgmt);
        }
        let granted = self.roles.get_mut(role).ok_or(Refusal::RoleNotFound)?;
        match granted.iter_mut().find(|(_, old, of)| (&old[..], &of[..]) == (key, end)) {
            Some(old) => old.0 = kind,
            None => granted.push((kind, key.to_vec(), end.to_vec())),
        }
        granted.sort_by(|left, right| left.1.cmp(&right.1));
        Ok(true)
    }

    fn check(&self, permissions: &Permissions) {
        assert_eq!(permissions.is_enabled(), self.enabled);
        assert_eq!(permissions.revision(), self.revision);
        assert!(permissions.user_names().eq(self.users.keys()));
        assert!(permissions.role_names().eq(self.roles.keys()));
        for (name, (roles, has_password)) in &self.users {
            let user = permissions.user(name).expect("it is listed");
            assert_eq!((user.roles(), !user.has_no_password()), (&roles[..], *has_password));
            assert_eq!(user.is_root(), roles.iter().any(|role| role == ROOT));
        }
        for (name, granted) in &self.roles {
            let role = permissions.role(name).expect("it is listed");
            let told = role
                .permissions()
                .iter()
                .map(|it| (it.perm_type(), &it.key[..], &it.range_end[..]));
            assert!(told.eq(granted.iter().map(|(kind, key, end)| (*kind, &key[..], &end[..]))));
        }
    }
}

#[test]
fn changes_are_what_a_naive_twin_makes_of_them() {
    for seed in 0..100 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut bench, mut model) = (Bench::new(), Model { revision: 1, ..Model::default() });
        for number in 0..200 {
            let step = Step::draw(&mut random);
            let (outcome, expected) = (step.done(&mut bench), model.on(&step));
            assert_eq!(
                outcome.map(|it| it.is_some()),
                expected,
                "seed {seed}, step {number}: {step:?}"
            );
            if number % 20 == 0 {
                model.check(&bench.reopened());
            }
        }
        model.check(bench.auth.permissions());
        model.check(&bench.reopened());
    }
}
