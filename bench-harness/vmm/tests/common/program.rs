//! Small guest programs: machine code for a flat 32-bit CPU without paging, interrupts off, in an
//! ELF with a PVH entry point.

use paraslot_protocol::{Phase, port};
use paraslot_spec::pci::mechanism1;

/// Where programs are loaded and start.
const BASE: u32 = 0x10_0000;

/// Straight-line code, in the order of the calls.
#[derive(Default)]
pub(crate) struct Program {
    code: Vec<u8>,
    steps: u32,
}

impl Program {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn emit(mut self, parts: &[&[u8]]) -> Self {
        parts.iter().for_each(|part| self.code.extend_from_slice(part));
        self
    }

    /// `mov byte [address], value`
    pub(crate) fn write8(self, address: u32, value: u8) -> Self {
        self.emit(&[&[0xc6, 0x05], &address.to_le_bytes(), &[value]])
    }

    /// `mov word [address], value`
    pub(crate) fn write16(self, address: u32, value: u16) -> Self {
        self.emit(&[&[0x66, 0xc7, 0x05], &address.to_le_bytes(), &value.to_le_bytes()])
    }

    /// `mov dword [address], value`
    pub(crate) fn write32(self, address: u32, value: u32) -> Self {
        self.emit(&[&[0xc7, 0x05], &address.to_le_bytes(), &value.to_le_bytes()])
    }

    /// `mov eax, [address]`
    pub(crate) fn read32(self, address: u32) -> Self {
        self.emit(&[&[0xa1], &address.to_le_bytes()])
    }

    /// `mov edx, port; in eax, dx`
    pub(crate) fn in32(self, port: u16) -> Self {
        self.emit(&[&[0xba], &u32::from(port).to_le_bytes(), &[0xed]])
    }

    /// `mov edx, port; mov al, value; out dx, al`
    pub(crate) fn out8(self, port: u16, value: u8) -> Self {
        self.emit(&[&[0xba], &u32::from(port).to_le_bytes(), &[0xb0, value, 0xee]])
    }

    /// `mov edx, port; mov ax, value; out dx, ax`
    pub(crate) fn out16(self, port: u16, value: u16) -> Self {
        let port = u32::from(port).to_le_bytes();
        self.emit(&[&[0xba], &port, &[0x66, 0xb8], &value.to_le_bytes(), &[0x66, 0xef]])
    }

    /// `mov edx, port; mov eax, value; out dx, eax`
    pub(crate) fn out32(self, port: u16, value: u32) -> Self {
        let port = u32::from(port).to_le_bytes();
        self.emit(&[&[0xba], &port, &[0xb8], &value.to_le_bytes(), &[0xef]])
    }

    /// `mov esi, address; mov ecx, count; mov edx, port; rep outsb`
    pub(crate) fn out_string(self, port: u16, address: u32, count: u32) -> Self {
        let (address, count) = (address.to_le_bytes(), count.to_le_bytes());
        let port = u32::from(port).to_le_bytes();
        self.emit(&[&[0xbe], &address, &[0xb9], &count, &[0xba], &port, &[0xf3, 0x6e]])
    }

    /// `mov esi, address; mov ecx, count; mov edx, port; rep outsw`
    pub(crate) fn out_words(self, port: u16, address: u32, count: u32) -> Self {
        let (address, count) = (address.to_le_bytes(), count.to_le_bytes());
        let port = u32::from(port).to_le_bytes();
        self.emit(&[&[0xbe], &address, &[0xb9], &count, &[0xba], &port, &[0x66, 0xf3, 0x6f]])
    }

    /// `mov edi, address; mov ecx, count; mov edx, port; rep insw`
    pub(crate) fn in_words(self, port: u16, address: u32, count: u32) -> Self {
        let (address, count) = (address.to_le_bytes(), count.to_le_bytes());
        let port = u32::from(port).to_le_bytes();
        self.emit(&[&[0xbf], &address, &[0xb9], &count, &[0xba], &port, &[0x66, 0xf3, 0x6d]])
    }

    /// Ends with the number of this step, from 1, unless what was read last is `value`.
    pub(crate) fn expect(mut self, value: u32) -> Self {
        self.steps += 1;
        let fail = Self::new().exit(self.steps).code;
        let skip = u32::try_from(fail.len()).unwrap().to_le_bytes();
        // cmp eax, value; je past the failure
        self.emit(&[&[0x3d], &value.to_le_bytes(), &[0x0f, 0x84], &skip, &fail])
    }

    /// Reads `address` until one of the bits of `mask` is set.
    pub(crate) fn until(self, address: u32, mask: u32) -> Self {
        // mov eax, [address]; test eax, mask; jz back to the first
        self.emit(&[&[0xa1], &address.to_le_bytes(), &[0xa9], &mask.to_le_bytes(), &[0x74, 0xf4]])
    }

    /// `ud2`, which without an interrupt table shuts the machine down.
    pub(crate) fn undefined(self) -> Self {
        self.emit(&[&[0x0f, 0x0b]])
    }

    /// `jmp` to itself.
    pub(crate) fn hang(self) -> Self {
        self.emit(&[&[0xeb, 0xfe]])
    }

    /// Writes 32 bits of a function's configuration space: device `device` on bus 0.
    pub(crate) fn config_write(self, device: u8, offset: u16, value: u32) -> Self {
        self.select(device, offset).out32(mechanism1::DATA, value)
    }

    /// Reads 32 bits of configuration space.
    pub(crate) fn config_read(self, device: u8, offset: u16) -> Self {
        self.select(device, offset).in32(mechanism1::DATA)
    }

    fn select(self, device: u8, offset: u16) -> Self {
        let address = u32::from(device) << 11 | u32::from(offset);
        self.out32(mechanism1::ADDRESS, mechanism1::ENABLE | address)
    }

    pub(crate) fn phase(self, phase: Phase) -> Self {
        self.out32(port::PHASE, phase as u32)
    }

    pub(crate) fn exit(self, code: u32) -> Self {
        self.out32(port::EXIT, code)
    }

    /// Repeats what `body` adds `count` times.
    pub(crate) fn times(self, count: u32, body: impl Fn(Self) -> Self) -> Self {
        (0..count).fold(self, |program, _| body(program))
    }

    /// The ELF. The program ends successfully if it has not ended before.
    pub(crate) fn image(self) -> Vec<u8> {
        const HEADER: u64 = 64;
        const SEGMENT: u64 = 56;
        const NOTE: u64 = HEADER + 2 * SEGMENT;
        const NOTE_LEN: u64 = 12 + 4 + 8;
        let code = self.exit(0).code;
        let mut elf = Vec::new();
        let put = |elf: &mut Vec<u8>, bytes: &[u8]| elf.extend_from_slice(bytes);
        let half = |elf: &mut Vec<u8>, value: u16| elf.extend_from_slice(&value.to_le_bytes());
        let word = |elf: &mut Vec<u8>, value: u32| elf.extend_from_slice(&value.to_le_bytes());
        let long = |elf: &mut Vec<u8>, value: u64| elf.extend_from_slice(&value.to_le_bytes());

        put(&mut elf, b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        [2, 62].into_iter().for_each(|value| half(&mut elf, value)); // executable, x86-64
        word(&mut elf, 1);
        [BASE.into(), HEADER, 0].into_iter().for_each(|value| long(&mut elf, value));
        word(&mut elf, 0);
        [64, 56, 2, 64, 0, 0].into_iter().for_each(|value| half(&mut elf, value));

        let offset = NOTE + NOTE_LEN;
        let len = u64::try_from(code.len()).unwrap();
        for (kind, offset, address, len) in
            [(1, offset, u64::from(BASE), len), (4, NOTE, 0, NOTE_LEN)]
        {
            word(&mut elf, kind); // PT_LOAD, PT_NOTE
            word(&mut elf, 7);
            [offset, address, address, len, len, 4].into_iter().for_each(|v| long(&mut elf, v));
        }
        [4, 8, 18].into_iter().for_each(|value| word(&mut elf, value)); // PHYS32_ENTRY
        put(&mut elf, b"Xen\0");
        long(&mut elf, BASE.into());
        put(&mut elf, &code);
        elf
    }
}
