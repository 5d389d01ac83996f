//! Human-readable sizes.

/// Bytes in powers of a thousand: `20 kB`, `2.1 GB`.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: &[&str] = &["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if size < 10 {
        return format!("{size} B");
    }
    let mut power = 0;
    let mut factor = 1_u64;
    while power + 1 < UNITS.len() && size / factor >= 1000 {
        factor *= 1000;
        power += 1;
    }
    let tenths = (u128::from(size) * 10 + u128::from(factor) / 2) / u128::from(factor);
    match tenths {
        0..100 => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power]),
        // Half to even, as Go rounds numbers without decimals.
        _ => {
            let (whole, rest) = (tenths / 10, tenths % 10);
            let up = rest > 5 || (rest == 5 && whole % 2 == 1);
            format!("{} {}", whole + u128::from(up), UNITS[power])
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes() {
        let told: Vec<_> =
            [0, 9, 10, 999, 1000, 16384, 20480, 82_854_982, 2_147_483_648].map(super::bytes).into();
        let expected =
            ["0 B", "9 B", "10 B", "999 B", "1.0 kB", "16 kB", "20 kB", "83 MB", "2.1 GB"];
        assert_eq!(told, expected);
    }
}
