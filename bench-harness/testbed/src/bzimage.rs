//! Linux's boot image, taken apart: a bzImage carries the kernel proper, an ELF file, compressed
//! (Linux, Documentation/arch/x86/boot.rst).

use std::io::Read;

use lzma_rust2::XzReader;

/// Where a bzImage's setup header says something, in bytes from the image's start.
const SETUP_SECTS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const HEADER: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// The first version of the boot protocol that says where the payload is.
const PAYLOAD_VERSION: u16 = 0x0208;

/// More than a kernel unpacks to: what a hostile image may cost.
const LARGEST: u64 = 1 << 30;
/// The largest dictionary, in KiB, that a kernel is compressed with, and some room.
const DICTIONARY_KIB: u32 = 256 << 10;

/// How compressed data begin, and what that compression is called.
const COMPRESSIONS: [(&[u8], &str); 6] = [
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\x5d\x00\x00", "lzma"),
    (b"\x89LZO", "lzo"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
];
const XZ: &[u8] = b"\xfd7zXZ\0";
const ELF: &[u8] = b"\x7fELF";

/// The ELF file inside the bzImage `image`; or, in a few words, why there is none.
pub(crate) fn vmlinux(image: &[u8]) -> Result<Vec<u8>, String> {
    let payload = payload(image)?;
    if payload.starts_with(ELF) {
        return Ok(payload.to_vec());
    }
    if let Some((_, name)) = COMPRESSIONS.iter().find(|(magic, _)| payload.starts_with(magic)) {
        return Err(format!("the kernel is compressed with {name}; this takes xz alone"));
    }
    if !payload.starts_with(XZ) {
        return Err("the kernel is compressed in a way that is not known".into());
    }
    let mut elf = Vec::new();
    // Behind the stream stands its unpacked length: hence one stream alone.
    XzReader::new_mem_limit(payload, false, DICTIONARY_KIB)
        .take(LARGEST)
        .read_to_end(&mut elf)
        .map_err(|error| format!("the kernel does not unpack: {error}"))?;
    if elf.starts_with(ELF) {
        Ok(elf)
    } else {
        Err("what the kernel unpacks to is no ELF file".into())
    }
}

/// The compressed kernel inside `image`.
fn payload(image: &[u8]) -> Result<&[u8], String> {
    let short = || "the boot image is cut short".to_owned();
    if image.get(BOOT_FLAG..BOOT_FLAG + 2) != Some(&[0x55, 0xaa])
        || image.get(HEADER..HEADER + 4) != Some(b"HdrS")
    {
        return Err("not a Linux boot image".into());
    }
    let version =
        image.get(VERSION..).and_then(<[u8]>::first_chunk).map(|&bytes| u16::from_le_bytes(bytes));
    if version.ok_or_else(short)? < PAYLOAD_VERSION {
        return Err("the boot image is too old to say where its kernel is".into());
    }
    // 0 stands for 4, for reasons of age.
    let sectors = match image.get(SETUP_SECTS).copied().ok_or_else(short)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1).checked_mul(512).zip(word(image, PAYLOAD_OFFSET));
    let start = start.and_then(|(setup, offset)| setup.checked_add(offset)).ok_or_else(short)?;
    let end = word(image, PAYLOAD_LENGTH)
        .and_then(|length| start.checked_add(length))
        .ok_or_else(short)?;
    image.get(start..end).ok_or_else(short)
}

/// The little-endian 32-bit number at `offset`.
fn word(image: &[u8], offset: usize) -> Option<usize> {
    let bytes = image.get(offset..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An image with one setup sector and `payload` right behind it.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[SETUP_SECTS] = 1;
        image[BOOT_FLAG..BOOT_FLAG + 2].copy_from_slice(&[0x55, 0xaa]);
        image[HEADER..HEADER + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&0x20fu16.to_le_bytes());
        let length = u32::try_from(payload.len()).expect("short");
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    /// `printf '\177ELF kernel' | xz --check=crc32 --x86 --lzma2=preset=0`, and the length that
    /// the kernel's build puts behind it.
    const COMPRESSED: &[u8] = include_bytes!("../fixtures/kernel.xz");

    #[test]
    fn an_xz_kernel_unpacks() {
        let mut payload = COMPRESSED.to_vec();
        payload.extend_from_slice(&11u32.to_le_bytes());
        assert_eq!(vmlinux(&image(&payload)).as_deref(), Ok(&b"\x7fELF kernel"[..]));
    }

    #[test]
    fn a_kernel_that_is_not_compressed_is_taken_as_it_is() {
        assert_eq!(vmlinux(&image(b"\x7fELFx")).as_deref(), Ok(&b"\x7fELFx"[..]));
    }

    #[test]
    fn other_compressions_are_named() {
        for (magic, name) in COMPRESSIONS {
            let error = vmlinux(&image(magic)).expect_err(name);
            assert!(error.contains(name), "{error}");
        }
        assert!(vmlinux(&image(b"????")).is_err());
    }

    #[test]
    fn what_is_no_image_is_refused() {
        for length in [0, 1, BOOT_FLAG, HEADER + 2, VERSION + 1, PAYLOAD_LENGTH + 2, 1023] {
            assert!(vmlinux(&image(COMPRESSED)[..length]).is_err(), "{length}");
        }
        let mut old = image(COMPRESSED);
        old[VERSION] = 7;
        old[VERSION + 1] = 2;
        assert!(vmlinux(&old).expect_err("too old").contains("too old"));
        let mut far = image(COMPRESSED);
        far[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].fill(0xff);
        assert!(vmlinux(&far).expect_err("too far").contains("cut short"));
    }

    proptest! {
        #[test]
        fn hostile_images_are_refused_quietly(
            header in prop::collection::vec(any::<u8>(), 0x1f1..0x260),
            payload in prop::collection::vec(any::<u8>(), 0..200),
            shape in any::<bool>(),
        ) {
            let mut bytes = image(&payload);
            if shape {
                bytes[SETUP_SECTS..header.len()].copy_from_slice(&header[SETUP_SECTS..]);
                bytes[BOOT_FLAG..BOOT_FLAG + 2].copy_from_slice(&[0x55, 0xaa]);
                bytes[HEADER..HEADER + 4].copy_from_slice(b"HdrS");
            } else {
                bytes = header;
            }
            let _ = vmlinux(&bytes);
        }

        #[test]
        fn a_damaged_stream_does_not_panic(at in 0..COMPRESSED.len(), bit in 0..8u32) {
            let mut payload = COMPRESSED.to_vec();
            payload[at] ^= 1 << bit;
            let _ = vmlinux(&image(&payload));
        }
    }
}
