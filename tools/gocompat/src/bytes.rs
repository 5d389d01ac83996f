//! Sizes in bytes, as Go's package humanize prints them.

/// Bytes with two digits and a decimal unit.
pub fn text(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let unit = bytes.ilog(1000) as usize;
    let value = bytes as f64 / 1000_f64.powi(unit as i32);
    let rounded = (value * 10.0 + 0.5).floor() / 10.0;
    let digits = usize::from(rounded < 10.0);
    format!("{rounded:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits() {
        let told = [9, 10, 999, 1000, 4096, 155_648, 5_595_136, 9_960_000, 20_480_000_000];
        let told = told.map(text);
        let wanted =
            ["9 B", "10 B", "999 B", "1.0 kB", "4.1 kB", "156 kB", "5.6 MB", "10 MB", "20 GB"];
        assert_eq!(told, wanted);
    }
}
