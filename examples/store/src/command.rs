//! Commands with checked arguments, parsed from requests. Anything wrong becomes
//! [`Command::Refused`].
//!
//! Options that would change the effect of a command and are not implemented are refused, never
//! ignored: a client that asks for expiry must not believe that it got it.

/// Longest key.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Longest value.
pub const VALUE_BYTES_MAX: usize = 8 << 20;

/// The condition on which a `SET` takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Always,
    /// `NX`: only if the key does not exist.
    Missing,
    /// `XX`: only if the key exists.
    Present,
}

/// One command, with arguments borrowed from the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    Get(&'a [u8]),
    Set {
        key: &'a [u8],
        value: &'a [u8],
        condition: Condition,
    },
    Del(Vec<&'a [u8]>),
    Exists(Vec<&'a [u8]>),
    Incr(&'a [u8]),
    Cas {
        key: &'a [u8],
        old: &'a [u8],
        new: &'a [u8],
    },
    Keys {
        prefix: &'a [u8],
    },
    DbSize,
    Info,
    Ping(Option<&'a [u8]>),
    Echo(&'a [u8]),
    Time,
    Quit,
    Shutdown,
    Hello,
    ClientId,
    ConfigGet(Vec<&'a [u8]>),
    /// A command with a constant reply: the whole reply, in wire format.
    Fixed(&'static [u8]),
    /// A wrong, unknown or unsupported command: the error text.
    Refused(String),
}

type Parsed<'a> = Result<Command<'a>, String>;

const OK: &[u8] = b"+OK\r\n";
const EMPTY: &[u8] = b"*0\r\n";
const NIL: &[u8] = b"$-1\r\n";
/// Longer than any known name.
const NAME_BYTES_MAX: usize = 16;

impl<'a> Command<'a> {
    /// Parses `request`, whose first element is the name of the command.
    pub(crate) fn parse(request: &[&'a [u8]]) -> Command<'a> {
        let Some((name, arguments)) = request.split_first() else {
            return Command::Refused("ERR empty command".to_owned());
        };
        dispatch(name, arguments).unwrap_or_else(Command::Refused)
    }
}

fn dispatch<'a>(name: &'a [u8], arguments: &[&'a [u8]]) -> Parsed<'a> {
    let mut upper = [0; NAME_BYTES_MAX];
    let upper = uppercase(name, &mut upper);
    match (upper, arguments) {
        (b"GET", [key]) => Ok(Command::Get(checked_key(key)?)),
        (b"SET", [key, value, options @ ..]) => set(key, value, options),
        (b"DEL", [_, ..]) => Ok(Command::Del(checked_keys(arguments)?)),
        (b"EXISTS", [_, ..]) => Ok(Command::Exists(checked_keys(arguments)?)),
        (b"INCR", [key]) => Ok(Command::Incr(checked_key(key)?)),
        (b"CAS", [key, old, new]) => Ok(Command::Cas {
            key: checked_key(key)?,
            old,
            new: checked_value(new)?,
        }),
        (b"KEYS", [pattern]) => keys(pattern),
        (b"DBSIZE", []) => Ok(Command::DbSize),
        (b"INFO", _) => Ok(Command::Info),
        (b"PING", []) => Ok(Command::Ping(None)),
        (b"PING", [message]) => Ok(Command::Ping(Some(message))),
        (b"ECHO", [message]) => Ok(Command::Echo(message)),
        (b"TIME", []) => Ok(Command::Time),
        (b"QUIT", _) => Ok(Command::Quit),
        (b"SHUTDOWN", _) => Ok(Command::Shutdown),
        (b"HELLO", _) => hello(arguments),
        (b"SELECT", [database]) => select(database),
        (b"COMMAND", _) => command(arguments),
        (b"CONFIG", [verb, names @ ..]) => config(verb, names),
        (b"CLIENT", [verb, ..]) => client(verb),
        _ if KNOWN.contains(&upper) => Err(wrong_arity(upper)),
        _ => Err(format!("ERR unknown command '{}'", printable(name))),
    }
}

/// The names matched above. One of these that got no match has the wrong number of arguments.
const KNOWN: &[&[u8]] = &[
    b"GET", b"SET", b"DEL", b"EXISTS", b"INCR", b"CAS", b"KEYS", b"DBSIZE", b"PING", b"ECHO",
    b"TIME", b"SELECT", b"CONFIG", b"CLIENT",
];

fn set<'a>(key: &'a [u8], value: &'a [u8], options: &[&'a [u8]]) -> Parsed<'a> {
    let mut condition = Condition::Always;
    for option in options {
        let mut upper = [0; NAME_BYTES_MAX];
        let wanted = match uppercase(option, &mut upper) {
            b"NX" => Condition::Missing,
            b"XX" => Condition::Present,
            b"EX" | b"PX" | b"EXAT" | b"PXAT" | b"KEEPTTL" => {
                return Err("ERR expiry is not supported: keys do not expire".to_owned());
            }
            b"GET" => return Err("ERR SET with GET is not supported".to_owned()),
            _ => return Err("ERR syntax error".to_owned()),
        };
        if condition != Condition::Always && condition != wanted {
            return Err("ERR syntax error".to_owned());
        }
        condition = wanted;
    }
    Ok(Command::Set {
        key: checked_key(key)?,
        value: checked_value(value)?,
        condition,
    })
}

/// Parses a prefix, with or without a `*` at its end. Any other pattern is refused: taking its
/// special characters literally would silently give a wrong answer.
fn keys(pattern: &[u8]) -> Parsed<'_> {
    let prefix = pattern.strip_suffix(b"*").unwrap_or(pattern);
    if prefix
        .iter()
        .any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
    {
        return Err("ERR KEYS takes a prefix, as in 'KEYS user:*', not a pattern".to_owned());
    }
    Ok(Command::Keys { prefix })
}

fn hello<'a>(arguments: &[&'a [u8]]) -> Parsed<'a> {
    match arguments {
        [] | [b"2"] => Ok(Command::Hello),
        [b"2", ..] => Err("ERR HELLO options are not supported".to_owned()),
        _ => Err("NOPROTO unsupported protocol version".to_owned()),
    }
}

fn select(database: &[u8]) -> Parsed<'_> {
    match database {
        b"0" => Ok(Command::Fixed(OK)),
        _ => Err("ERR DB index is out of range".to_owned()),
    }
}

/// Answers interactive clients, which ask for descriptions of all commands, with an empty list.
fn command<'a>(arguments: &[&'a [u8]]) -> Parsed<'a> {
    let mut upper = [0; NAME_BYTES_MAX];
    match arguments.first().map(|verb| uppercase(verb, &mut upper)) {
        None | Some(b"DOCS" | b"INFO" | b"LIST") => Ok(Command::Fixed(EMPTY)),
        Some(_) => Err("ERR unknown COMMAND subcommand".to_owned()),
    }
}

fn config<'a>(verb: &[u8], names: &[&'a [u8]]) -> Parsed<'a> {
    if verb.eq_ignore_ascii_case(b"GET") && !names.is_empty() {
        Ok(Command::ConfigGet(names.to_vec()))
    } else {
        Err("ERR CONFIG is not supported, other than GET".to_owned())
    }
}

fn client<'a>(verb: &[u8]) -> Parsed<'a> {
    let mut upper = [0; NAME_BYTES_MAX];
    match uppercase(verb, &mut upper) {
        b"ID" => Ok(Command::ClientId),
        b"SETNAME" | b"SETINFO" => Ok(Command::Fixed(OK)),
        b"GETNAME" => Ok(Command::Fixed(NIL)),
        _ => Err("ERR CLIENT is not supported, other than ID, SETNAME, GETNAME and SETINFO".into()),
    }
}

fn checked_key(key: &[u8]) -> Result<&[u8], String> {
    if key.len() > KEY_BYTES_MAX {
        return Err(format!("ERR key is longer than {KEY_BYTES_MAX} bytes"));
    }
    Ok(key)
}

fn checked_keys<'a>(keys: &[&'a [u8]]) -> Result<Vec<&'a [u8]>, String> {
    keys.iter().map(|key| checked_key(key)).collect()
}

fn checked_value(value: &[u8]) -> Result<&[u8], String> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!("ERR value is longer than {VALUE_BYTES_MAX} bytes"));
    }
    Ok(value)
}

/// Writes `name` in upper case into `space`; a name that does not fit matches nothing.
fn uppercase<'s>(name: &[u8], space: &'s mut [u8; NAME_BYTES_MAX]) -> &'s [u8] {
    let Some(space) = space.get_mut(..name.len()) else {
        return b"";
    };
    space.copy_from_slice(name);
    space.make_ascii_uppercase();
    space
}

fn wrong_arity(upper: &[u8]) -> String {
    let name = printable(upper).to_ascii_lowercase();
    format!("ERR wrong number of arguments for '{name}' command")
}

fn printable(name: &[u8]) -> String {
    name[..name.len().min(64)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<'a>(line: &'a str) -> Command<'a> {
        let words: Vec<&'a [u8]> = line.split(' ').map(str::as_bytes).collect();
        Command::parse(&words)
    }

    fn refusal(line: &str) -> String {
        match parse(line) {
            Command::Refused(text) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn names_are_case_insensitive() {
        assert_eq!(parse("gEt k"), Command::Get(b"k"));
        assert_eq!(parse("Command dOCS"), Command::Fixed(EMPTY));
    }

    #[test]
    fn set_takes_nx_or_xx_and_refuses_what_it_does_not_do() {
        let set = |condition| Command::Set {
            key: b"k",
            value: b"v",
            condition,
        };
        assert_eq!(parse("SET k v"), set(Condition::Always));
        assert_eq!(parse("SET k v nx"), set(Condition::Missing));
        assert_eq!(parse("SET k v XX"), set(Condition::Present));
        assert_eq!(refusal("SET k v NX XX"), "ERR syntax error");
        assert_eq!(refusal("SET k v what"), "ERR syntax error");
        assert!(refusal("SET k v EX 10").contains("keys do not expire"));
        assert!(refusal("SET k v GET").contains("not supported"));
    }

    #[test]
    fn wrong_arity_and_unknown_names_are_told_apart() {
        assert_eq!(
            refusal("GET"),
            "ERR wrong number of arguments for 'get' command"
        );
        assert_eq!(
            refusal("CAS a b"),
            "ERR wrong number of arguments for 'cas' command"
        );
        assert_eq!(refusal("FLUSHALL"), "ERR unknown command 'FLUSHALL'");
        let endless = "X".repeat(1000);
        assert!(refusal(&endless).len() < 100);
    }

    #[test]
    fn keys_takes_a_prefix_only() {
        assert_eq!(parse("KEYS a:*"), Command::Keys { prefix: b"a:" });
        assert_eq!(parse("KEYS a:"), Command::Keys { prefix: b"a:" });
        assert_eq!(parse("KEYS *"), Command::Keys { prefix: b"" });
        for pattern in ["KEYS *a", "KEYS a?", "KEYS [ab]*", "KEYS a**", "KEYS a\\*"] {
            assert!(refusal(pattern).contains("not a pattern"), "{pattern}");
        }
    }

    #[test]
    fn too_long_keys_and_values_are_refused() {
        let key = "k".repeat(KEY_BYTES_MAX + 1);
        let value = "v".repeat(VALUE_BYTES_MAX + 1);
        assert_eq!(
            refusal(&format!("GET {key}")),
            "ERR key is longer than 65536 bytes"
        );
        assert_eq!(
            refusal(&format!("DEL a {key}")),
            "ERR key is longer than 65536 bytes"
        );
        assert_eq!(
            refusal(&format!("SET k {value}")),
            "ERR value is longer than 8388608 bytes"
        );
        assert_eq!(
            refusal(&format!("CAS k o {value}")),
            "ERR value is longer than 8388608 bytes"
        );
        assert!(matches!(
            parse(&format!("GET {}", &key[1..])),
            Command::Get(_)
        ));
    }

    #[test]
    fn only_database_0_and_protocol_2_exist() {
        assert_eq!(parse("SELECT 0"), Command::Fixed(OK));
        assert_eq!(refusal("SELECT 1"), "ERR DB index is out of range");
        assert_eq!(parse("HELLO 2"), Command::Hello);
        assert!(refusal("HELLO 3").starts_with("NOPROTO "));
    }
}
