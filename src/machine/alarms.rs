//! The active alarms.

use std::collections::BTreeSet;
use std::ops::Bound;

use basalt_proto::etcdserverpb::{AlarmMember, AlarmType};
use bytes::Bytes;
use prost::Message as _;

use crate::store::{Overlay, Space, View};
use crate::types::{Fault, MemberId};

/// The active alarms by member. Stored as etcd does: the encoded record is the key.
#[derive(Debug, Default)]
pub(super) struct Alarms(BTreeSet<(i32, MemberId)>);

impl Alarms {
    pub(super) fn open(view: &impl View) -> Result<Self, Fault> {
        let mut alarms = BTreeSet::new();
        for pair in view.scan(Space::Alarm, Bound::Unbounded, Bound::Unbounded) {
            let alarm = AlarmMember::decode(pair?.0)
                .map_err(|_| Fault::new("an alarm in the store does not read back"))?;
            alarms.insert((alarm.alarm, alarm.member_id));
        }
        Ok(Self(alarms))
    }

    /// Raises an alarm; no change if it is active already.
    pub(super) fn raise<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        member: MemberId,
        alarm: AlarmType,
    ) {
        if self.0.insert((alarm as i32, member)) {
            tx.put(Space::Alarm, key(member, alarm), Bytes::new());
        }
    }

    /// Disarms an alarm; true if it was active.
    pub(super) fn put_out<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        member: MemberId,
        alarm: AlarmType,
    ) -> bool {
        let was_on = self.0.remove(&(alarm as i32, member));
        if was_on {
            tx.delete(Space::Alarm, key(member, alarm));
        }
        was_on
    }

    /// True if any member has this alarm.
    pub(super) fn any(&self, alarm: AlarmType) -> bool {
        self.0.iter().any(|(kind, _)| *kind == alarm as i32)
    }

    /// Alarms of a kind (`None` for all) and of a member (0 for all).
    pub(super) fn list(&self, member: MemberId, alarm: AlarmType) -> Vec<AlarmMember> {
        let wanted = |kind: i32, id: MemberId| {
            (alarm == AlarmType::None || kind == alarm as i32) && (member == 0 || id == member)
        };
        let listed = self.0.iter().filter(|(kind, id)| wanted(*kind, *id));
        listed
            .map(|(alarm, member_id)| AlarmMember { member_id: *member_id, alarm: *alarm })
            .collect()
    }
}

fn key(member_id: MemberId, alarm: AlarmType) -> Bytes {
    AlarmMember { member_id, alarm: alarm as i32 }.encode_to_vec().into()
}
