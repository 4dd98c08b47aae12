//! The numbers of users and groups by their names, as the system's name service has them.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;

/// First and largest room for an entry: a group may have many members.
const BUFFER_BYTES: (usize, usize) = (1 << 10, 1 << 20);

/// The number of a user, given by name or as a number.
///
/// # Errors
/// There is no such user, or the name service failed.
pub(crate) fn user_id(name: &str) -> io::Result<u32> {
    let lookup = |name: *const c_char, buffer: &mut [c_char]| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = std::ptr::null_mut();
        let (start, length) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the name ends in a zero, entry, buffer and result live for the call, and the
        // length is the buffer's.
        let code =
            unsafe { libc::getpwnam_r(name, entry.as_mut_ptr(), start, length, &raw mut found) };
        // SAFETY: where the result is set, it is the entry, which is filled in then.
        let id = (!found.is_null()).then(|| unsafe { entry.assume_init_ref().pw_uid });
        (code, id)
    };
    resolve_id("user", name, lookup)
}

/// The number of a group, given by name or as a number.
///
/// # Errors
/// As [`user_id`].
pub(crate) fn group_id(name: &str) -> io::Result<u32> {
    let lookup = |name: *const c_char, buffer: &mut [c_char]| {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = std::ptr::null_mut();
        let (start, length) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: as in `user_id`.
        let code =
            unsafe { libc::getgrnam_r(name, entry.as_mut_ptr(), start, length, &raw mut found) };
        // SAFETY: as in `user_id`.
        let id = (!found.is_null()).then(|| unsafe { entry.assume_init_ref().gr_gid });
        (code, id)
    };
    resolve_id("group", name, lookup)
}

fn resolve_id(
    what: &str,
    name: &str,
    lookup: impl Fn(*const c_char, &mut [c_char]) -> (c_int, Option<u32>),
) -> io::Result<u32> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("no {what} \"{name}\""));
    let given = CString::new(name).map_err(|_| unknown())?;
    let mut buffer = vec![0; BUFFER_BYTES.0];
    loop {
        match lookup(given.as_ptr(), &mut buffer) {
            (_, Some(id)) => return Ok(id),
            (libc::ERANGE, None) if buffer.len() < BUFFER_BYTES.1 => {
                buffer.resize(buffer.len() * 4, 0);
            }
            // Errors that getpwnam_r(3) lists for a name that does not exist.
            (0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM, None) => {
                return Err(unknown());
            }
            (code, None) => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found_and_others_are_named() {
        assert_eq!(user_id("root").unwrap(), 0);
        assert_eq!(group_id("root").unwrap(), 0);
        assert_eq!(user_id("4711").unwrap(), 4711);
        let error = group_id("no-such-group").unwrap_err();
        assert_eq!(error.to_string(), "no group \"no-such-group\"");
    }
}
