//! The filter against its rules, run by an interpreter of the few instructions that it uses.

extern crate std;

use super::*;
use std::vec::Vec;

const TRAMPOLINE: u64 = 0x5000_0000_0002;
const LOADER: Range<u64> = 0x7FFF_F7FC_A000..0x7FFF_F7FF_0000;
const ELSEWHERE: u64 = 0x5555_5555_6000;

struct Call {
    number: u32,
    architecture: u32,
    place: u64,
    arguments: [u64; 6],
}

impl Call {
    fn new(number: u32, place: u64) -> Self {
        Self {
            number,
            architecture: AUDIT_ARCH_X86_64,
            place,
            arguments: [0; 6],
        }
    }

    fn with(mut self, arguments: [u64; 3]) -> Self {
        self.arguments[..3].copy_from_slice(&arguments);
        self
    }

    fn word(&self, at: u32) -> u32 {
        let mut bytes = Vec::new();
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.architecture.to_le_bytes());
        bytes.extend(self.place.to_le_bytes());
        bytes.extend(
            self.arguments
                .iter()
                .flat_map(|argument| argument.to_le_bytes()),
        );
        let at = at as usize;
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }
}

/// The action, and whether it was found without a look at the place or the arguments.
fn run(program: &Program, call: &Call) -> (u32, bool) {
    let (mut at, mut value, mut by_number) = (0, 0, true);
    loop {
        let it = program.instructions()[at];
        at += 1;
        match it.code {
            BPF_LD_W_ABS => {
                by_number &= it.k <= ARCH;
                value = call.word(it.k);
            }
            BPF_JMP_JA => at += it.k as usize,
            BPF_JMP_JEQ_K if value == it.k => at += usize::from(it.jt),
            BPF_JMP_JGE_K if value >= it.k => at += usize::from(it.jt),
            BPF_JMP_JEQ_K | BPF_JMP_JGE_K => at += usize::from(it.jf),
            BPF_RET_K => return (it.k, by_number),
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn program() -> Program {
    let (trampoline, loader) = (TRAMPOLINE, LOADER);
    Program::new(&TrustedCallers { trampoline, loader })
}

#[test]
fn verdicts_are_those_of_the_rules() {
    let program = program();
    for number in (0..=NUMBERS + 9).chain([0x4000_0000, u32::MAX]) {
        let expected = match rule(number) {
            Rule::Free => (libc::SECCOMP_RET_ALLOW, true),
            Rule::Refused => (SECCOMP_RET_ENOSYS, true),
            Rule::Caught | Rule::Unknown => (libc::SECCOMP_RET_TRAP, false),
        };
        assert_eq!(
            run(&program, &Call::new(number, ELSEWHERE)),
            expected,
            "{number}"
        );
        for place in [TRAMPOLINE, LOADER.start, LOADER.end - 1] {
            let (verdict, _) = run(&program, &Call::new(number, place));
            let refused = rule(number) == Rule::Refused;
            let expected = if refused {
                SECCOMP_RET_ENOSYS
            } else {
                libc::SECCOMP_RET_ALLOW
            };
            assert_eq!(verdict, expected, "{number} from {place:#x}");
        }
        for place in [
            TRAMPOLINE - 1,
            TRAMPOLINE + 1,
            LOADER.start - 1,
            LOADER.end,
            TRAMPOLINE ^ 1 << 40,
        ] {
            assert_eq!(
                run(&program, &Call::new(number, place)),
                expected,
                "{number}"
            );
        }
    }
}

#[test]
fn the_largest_rules_fit_and_other_architectures_are_caught() {
    let mut call = Call::new(9, TRAMPOLINE);
    assert!(program().instructions().len() < INSTRUCTIONS_MAX / 2);
    call.architecture = 0x4000_0003;
    assert_eq!(run(&program(), &call).0, libc::SECCOMP_RET_TRAP);
}

#[test]
fn only_libcs_own_threads_and_forks_pass() {
    let verdict =
        |number, arguments| run(&program(), &Call::new(number, ELSEWHERE).with(arguments)).0;
    for flags in CLONE_FLAGS {
        assert_eq!(
            verdict(libc::SYS_clone as u32, [u64::from(flags), 0, 0]),
            libc::SECCOMP_RET_ALLOW
        );
    }
    for flags in [0, 17, 0x0005_0F00, 0x4111] {
        assert_eq!(
            verdict(libc::SYS_clone as u32, [flags, 0, 0]),
            libc::SECCOMP_RET_TRAP,
            "{flags:#x}"
        );
    }
}

#[test]
fn calls_that_go_round_the_schedule_are_refused() {
    const CLONE3: u32 = 435;
    const IO_URING_SETUP: u32 = 425;
    for number in [CLONE3, IO_URING_SETUP, 426, 427, 206, 447, 449, 323] {
        assert_eq!(rule(number), Rule::Refused, "{number}");
    }
}

#[test]
fn calls_that_nobody_has_thought_about_are_unknown() {
    for number in [272, 308, 470, NUMBERS - 1, NUMBERS] {
        assert_eq!(rule(number), Rule::Unknown, "{number}");
    }
}
