//! The machine as the server sees it, the same everywhere: `uname`, `sysinfo`, `sysconf`.

use crate::hooks::result::{error, finish};
use crate::libc_symbols::{Real, libc_own};
use crate::sys::{self, sys};
use crate::turn::Turn;
use core::ffi::{c_char, c_int, c_long};

const HOST_NAME: &[u8] = b"brolga\0";

#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostname(to: *mut c_char, len: usize) -> c_int {
    if !Turn::is_scheduled() {
        let mut name = core::mem::MaybeUninit::<libc::utsname>::uninit();
        // SAFETY: room for a utsname; on success it is filled and NUL-terminated.
        unsafe {
            sys!(sys::SYS_uname, name.as_mut_ptr());
            let node = &(*name.as_ptr()).nodename;
            core::ptr::copy_nonoverlapping(node.as_ptr(), to, len.min(node.len()));
        }
        return 0;
    }
    if len < HOST_NAME.len() {
        return finish(error(libc::ENAMETOOLONG)) as c_int;
    }
    // SAFETY: the caller promises `len` bytes.
    unsafe { core::ptr::copy_nonoverlapping(HOST_NAME.as_ptr().cast(), to, HOST_NAME.len()) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn uname(to: *mut libc::utsname) -> c_int {
    // SAFETY: the caller's pointer, passed on.
    let result = unsafe { sys!(sys::SYS_uname, to) };
    if result == 0 && Turn::is_scheduled() {
        // SAFETY: the kernel has just filled it; the name and its NUL fit.
        unsafe {
            let node = (&raw mut (*to).nodename).cast::<u8>();
            core::ptr::copy_nonoverlapping(HOST_NAME.as_ptr(), node, HOST_NAME.len());
        }
    }
    finish(result) as c_int
}

static SYSCONF: Real = Real::new(c"sysconf");

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sysconf(name: c_int) -> c_long {
    let processors = [libc::_SC_NPROCESSORS_ONLN, libc::_SC_NPROCESSORS_CONF].contains(&name);
    if processors && let Some(turn) = Turn::have() {
        return c_long::from(turn.local().cpus);
    }
    // SAFETY: libc's own function, with its signature.
    unsafe {
        let real: extern "C" fn(c_int) -> c_long = core::mem::transmute(SYSCONF.get());
        real(name)
    }
}

fn processors() -> c_int {
    // SAFETY: a plain integer.
    unsafe { sysconf(libc::_SC_NPROCESSORS_ONLN) as c_int }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn get_nprocs() -> c_int {
    processors()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn get_nprocs_conf() -> c_int {
    processors()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sysinfo(to: *mut libc::sysinfo) -> c_int {
    let Some(mut turn) = Turn::have() else {
        // SAFETY: the caller's pointer, passed on.
        return finish(unsafe { sys!(libc::SYS_sysinfo, to) }) as c_int;
    };
    let uptime = (turn.now_ns() - turn.scheduler().first_time_ns()) / 1_000_000_000;
    // SAFETY: the caller promises room for a sysinfo, for which all zeros are valid.
    unsafe {
        core::ptr::write_bytes(to, 0, 1);
        (*to).uptime = uptime as c_long;
        (*to).totalram = 8 << 30;
        (*to).freeram = 4 << 30;
        (*to).procs = 1;
        (*to).mem_unit = 1;
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getloadavg(to: *mut f64, count: c_int) -> c_int {
    if !Turn::is_scheduled() {
        return libc_own!(getloadavg(to: *mut f64, count: c_int) -> c_int);
    }
    for at in 0..count.clamp(0, 3) {
        // SAFETY: the caller promises room for `count` doubles.
        unsafe { to.add(at as usize).write(0.0) };
    }
    count.clamp(0, 3)
}
