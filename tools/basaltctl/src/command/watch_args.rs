//! Splits the arguments of a watch into its keys and the command to run: pflag has removed the `--`,
//! so the words as typed are parsed again.

use gocompat::flags::Word;

/// Keys, then the command.
pub(crate) type Parts = (Vec<Word>, Vec<Word>);

const BAD_NUMBER: &str = "bad number of arguments";
const CONFLICT: &str = "bad number of arguments (found conflicting environment key)";
const NO_COMMAND: &str = "bad number of arguments (found separator --, but no commands)";

/// `typed` are the words after `watch`, `args` those that are no flags, `named` the keys that the
/// environment names. Only in an interactive line, not on the command line, may flags stand
/// between the words and the words still be too few.
///
/// # Errors
/// etcdctl's error text.
pub(crate) fn split(
    typed: &[Word],
    args: &[Word],
    named: &[Word],
    interactive: bool,
) -> Result<Parts, &'static str> {
    let separator = typed.iter().position(|it| it == b"--");
    let words = if interactive { args.len() } else { typed.len() };
    match separator {
        Some(at) if at + 1 == typed.len() => return Err(NO_COMMAND),
        None if words == 0 && named.is_empty() => return Err(BAD_NUMBER),
        None if !args.is_empty() && !named.is_empty() => return Err(CONFLICT),
        Some(at) if !interactive && !named.is_empty() => conflicts(typed, args, at)?,
        _ => {}
    }
    let mut keys = [named, args].concat();
    let Some(at) = separator else { return Ok((keys, Vec::new())) };
    let command = typed[at + 1..].to_vec();
    let first = keys.iter().rposition(|it| *it == command[0]);
    keys.truncate(first.unwrap_or_default());
    Ok((keys, command))
}

/// With keys from the environment, the only words may be those of the command.
fn conflicts(typed: &[Word], args: &[Word], separator: usize) -> Result<(), &'static str> {
    let mut right = typed.len() - 1;
    for word in args.iter().rev() {
        if *word == typed[right] {
            right = right.saturating_sub(1);
        } else if right == separator {
            return Err(CONFLICT);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Word> {
        text.split_whitespace().map(|it| it.as_bytes().to_vec()).collect()
    }

    #[test]
    fn words_fall_into_keys_and_a_command() {
        let parts = split(&words("a b -- echo a"), &words("a b echo a"), &[], false);
        assert_eq!(parts, Ok((words("a b"), words("echo a"))));
        let parts = split(&words("--rev 1 -- echo"), &words("echo"), &words("k"), false);
        assert_eq!(parts, Ok((words("k"), words("echo"))));
        assert_eq!(split(&words("a --"), &words("a"), &[], false), Err(NO_COMMAND));
        assert_eq!(split(&[], &[], &[], false), Err(BAD_NUMBER));
        assert_eq!(split(&words("--prefix"), &[], &[], true), Err(BAD_NUMBER));
        assert_eq!(split(&words("a"), &words("a"), &words("k"), false), Err(CONFLICT));
        let parts = split(&words("a -- echo"), &words("a echo"), &words("k"), false);
        assert_eq!(parts, Err(CONFLICT));
    }
}
