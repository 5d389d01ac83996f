//! Frames arrive as they were sent, however the bytes are cut; other bytes are rejected.

use super::*;

#[test]
fn frames_survive_being_cut_anywhere() {
    let hello = Hello {
        cluster: 1,
        from: 2,
        to: 3,
        lane: Lane::Bulk as i32,
        urls: vec![],
        feature_level: 2,
        pings: true,
    };
    let shared = b"entries";
    let mut bytes = message(Kind::Hello, &hello).to_vec();
    bytes.extend_from_slice(&encode(Kind::Raft, b"head ", shared));
    bytes.extend_from_slice(shared);
    for step in 1..bytes.len() {
        let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
        for part in bytes.chunks(step) {
            decoder.take(part);
            while let Some(frame) = decoder.next_frame().expect("whole") {
                frames.push(frame);
            }
        }
        assert_eq!(frames[0].read(Kind::Hello), Some(hello.clone()));
        assert_eq!(frames[1].payload, "head entries");
        assert_eq!(frames.len(), 2);
    }
}

#[test]
fn a_changed_bit_is_found() {
    let bytes = encode(Kind::Raft, b"payload", &[]);
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let mut decoder = Decoder::default();
        decoder.take(&changed);
        assert!(!matches!(decoder.next_frame(), Ok(Some(_))), "bit {bit}");
    }
}

#[test]
fn rejected_dialer_gets_the_reason() {
    let hello =
        Hello { cluster: 1, from: 2, to: 3, lane: 1, urls: vec![], feature_level: 2, pings: true };
    let check = |hello: &Hello, cluster, member, agreed| {
        check(hello, cluster, member, FeatureLevel::new(agreed), |id| id == 9)
    };
    assert_eq!(check(&hello, 1, 3, 2), Ok(Lane::Bulk));
    assert_eq!(check(&hello, 7, 3, 2), Err(RejectReason::OtherCluster));
    assert_eq!(check(&hello, 1, 4, 2), Err(RejectReason::OtherMember));
    assert_eq!(check(&hello, 1, 3, 3), Err(RejectReason::FeatureLevel));
    let older = Hello { feature_level: 0, ..hello.clone() };
    assert_eq!(check(&older, 1, 3, 1), Ok(Lane::Bulk), "a version before there were levels");
    assert_eq!(check(&older, 1, 3, 2), Err(RejectReason::FeatureLevel));
    assert_eq!(check(&Hello { from: 9, ..hello }, 1, 3, 2), Err(RejectReason::Removed));
}
