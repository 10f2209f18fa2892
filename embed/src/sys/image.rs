//! What tells one execution of a program from another.

/// Sixteen bytes that the kernel chose for this execution, the same in every copy by `fork`.
pub(crate) fn random() -> [u8; 16] {
    // SAFETY: no precondition; an unknown entry gives zero.
    let address = unsafe { libc::getauxval(libc::AT_RANDOM) };
    let bytes = std::ptr::with_exposed_provenance::<[u8; 16]>(address as usize);
    // SAFETY: null, or the address of the sixteen bytes, which the kernel put on the initial stack
    // and nobody changes. Bytes need no alignment.
    unsafe { bytes.as_ref() }.copied().unwrap_or_default()
}
