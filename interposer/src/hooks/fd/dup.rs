//! `dup` and its family.

use super::object::{forget, is_ours, name, object};
use crate::hooks::fs::lock;
use crate::hooks::result::{error, finish};
use crate::hooks::stdio::stream;
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::operation as op;
use brolga_vnet::Object;
use core::ffi::c_int;

/// After a kernel call that made `new` out of `old`.
pub(crate) fn duplicated(old: c_int, new: isize) -> isize {
    let Some(mut turn) = Turn::have() else {
        return new;
    };
    if new < 0 || new == old as isize {
        return new;
    }
    let replaced = object(&mut turn, new as c_int);
    if replaced.is_some() {
        forget(&mut turn, new as c_int);
    }
    if replaced == Some(Object::Stream) {
        turn.real_changed();
    }
    lock::released(&mut turn);
    match object(&mut turn, old) {
        Some(object) => {
            let named = name(&mut turn, new, object);
            stream::adopt(&mut turn, new as c_int);
            named
        }
        None => new,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup(old: c_int) -> c_int {
    let _turn = Turn::take(op::DUP);
    // SAFETY: a plain integer.
    finish(duplicated(old, unsafe { sys!(sys::SYS_dup, old) })) as c_int
}

/// Makes a descriptor name what another one does.
pub(crate) fn dup2_(old: c_int, new: c_int) -> isize {
    let _turn = Turn::take(op::DUP);
    if is_ours(new) {
        return error(libc::EBADF);
    }
    // SAFETY: plain integers.
    duplicated(old, unsafe { sys!(sys::SYS_dup2, old, new) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    finish(dup2_(old, new)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    let _turn = Turn::take(op::DUP);
    if is_ours(new) {
        return finish(error(libc::EBADF)) as c_int;
    }
    // SAFETY: plain integers.
    finish(duplicated(old, unsafe {
        sys!(sys::SYS_dup3, old, new, flags)
    })) as c_int
}
