//! Commands, byte by byte.

/// A command of `N` bytes, all zero but for its operation code and these bytes.
pub(crate) fn cdb<const N: usize>(opcode: u8, bytes: &[(usize, u8)]) -> [u8; N] {
    let mut cdb = [0; N];
    cdb[0] = opcode;
    for (at, byte) in bytes {
        cdb[*at] = *byte;
    }
    cdb
}

/// READ (6) and the like: 21 bits of LBA, 8 of length.
pub(crate) fn rw6(opcode: u8, lba: u32, blocks: u32) -> Vec<u8> {
    let [_, a, b, c] = lba.to_be_bytes();
    let [.., blocks] = blocks.to_be_bytes();
    vec![opcode, a, b, c, blocks, 0]
}

/// READ (10) and the like: 32 bits, 16 of length.
pub(crate) fn rw10(opcode: u8, flags: u8, lba: u32, blocks: u32) -> Vec<u8> {
    let [.., high, low] = blocks.to_be_bytes();
    [&[opcode, flags][..], &lba.to_be_bytes(), &[0, high, low, 0]].concat()
}

/// READ (12) and the like: 32 bits, 32 of length.
pub(crate) fn rw12(opcode: u8, flags: u8, lba: u32, blocks: u32) -> Vec<u8> {
    [&[opcode, flags][..], &lba.to_be_bytes(), &blocks.to_be_bytes(), &[0, 0]].concat()
}

/// READ (16) and the like: 64 bits, 32 of length.
pub(crate) fn rw16(opcode: u8, flags: u8, lba: u64, blocks: u32) -> Vec<u8> {
    [&[opcode, flags][..], &lba.to_be_bytes(), &blocks.to_be_bytes(), &[0, 0]].concat()
}

/// TEST UNIT READY.
pub(crate) const READY: [u8; 6] = [0; 6];

/// READ (10).
pub(crate) fn read(lba: u32, blocks: u32) -> Vec<u8> {
    rw10(0x28, 0, lba, blocks)
}

/// WRITE (10).
pub(crate) fn write(lba: u32, blocks: u32) -> Vec<u8> {
    rw10(0x2a, 0, lba, blocks)
}

/// INQUIRY; of a page if there is one.
pub(crate) fn inquiry(page: Option<u8>, allocation: u16) -> [u8; 6] {
    let [high, low] = allocation.to_be_bytes();
    [0x12, u8::from(page.is_some()), page.unwrap_or(0), high, low, 0]
}

/// REQUEST SENSE, for so many bytes.
pub(crate) fn request_sense(descriptor: bool, allocation: u8) -> [u8; 6] {
    [0x03, u8::from(descriptor), 0, 0, allocation, 0]
}
