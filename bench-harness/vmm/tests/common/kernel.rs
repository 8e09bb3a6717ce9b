//! Small kernels: 64-bit machine code in a vmlinux, started by Linux's boot protocol.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tempfile::NamedTempFile;

/// Where kernels are loaded and start.
const BASE: u32 = 0x10_0000;
/// Of what is at a place of its own, from there.
const HANDLER: usize = 0x800;
const TABLE_POINTER: usize = 0xf00;
const TABLE: usize = 0x1000;
/// Bytes of memory, the last of which are the stack and not in the file.
const LEN: u32 = 0x4000;

const SERIAL: u16 = 0x3f8;
const LINE_STATUS: u16 = SERIAL + 5;
const SLEEP: u16 = 0x600;
const RESET: u16 = 0x602;
pub(crate) const BUTTON: u16 = 0x604;

/// The local APIC: spurious vector, end of interrupt, and the command register's halves.
pub(crate) const APIC_SPURIOUS: u32 = 0xfee0_00f0;
const APIC_EOI: u32 = 0xfee0_00b0;
const APIC_COMMAND: u32 = 0xfee0_0300;
const APIC_TARGET: u32 = 0xfee0_0310;
pub(crate) const IO_APIC_SELECT: u32 = 0xfec0_0000;
pub(crate) const IO_APIC_DATA: u32 = 0xfec0_0010;
pub(crate) const VECTOR: u8 = 0x41;

/// Straight-line code, in the order of the calls.
#[derive(Clone, Default)]
pub(crate) struct Kernel(Vec<u8>);

impl Kernel {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn emit(mut self, parts: &[&[u8]]) -> Self {
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
        self
    }

    /// `mov edx, port; mov al, value; out dx, al`
    pub(crate) fn out8(self, port: u16, value: u8) -> Self {
        self.emit(&[&[0xba], &u32::from(port).to_le_bytes(), &[0xb0, value, 0xee]])
    }

    /// `mov edx, port; in al, dx`
    pub(crate) fn in8(self, port: u16) -> Self {
        self.emit(&[&[0xba], &u32::from(port).to_le_bytes(), &[0xec]])
    }

    /// `mov edi, address; mov dword [rdi], value`
    pub(crate) fn write32(self, address: u32, value: u32) -> Self {
        self.emit(&[&[0xbf], &address.to_le_bytes(), &[0xc7, 0x07], &value.to_le_bytes()])
    }

    /// `mov edi, address; mov eax, [rdi]`
    pub(crate) fn read32(self, address: u32) -> Self {
        self.emit(&[&[0xbf], &address.to_le_bytes(), &[0x8b, 0x07]])
    }

    /// Writes `text` to the serial port.
    pub(crate) fn say(self, text: &str) -> Self {
        text.bytes().fold(self, |kernel, byte| kernel.out8(SERIAL, byte))
    }

    /// Writes what was read last to the serial port, lowest byte first.
    pub(crate) fn say_read(self) -> Self {
        // mov edx, SERIAL; four times: out dx, al; shr eax, 8
        let kernel = self.emit(&[&[0xba], &u32::from(SERIAL).to_le_bytes()]);
        (0..4).fold(kernel, |kernel, _| kernel.emit(&[&[0xee, 0xc1, 0xe8, 8]]))
    }

    /// Writes the command line to the serial port, and then the initial RAM disk.
    pub(crate) fn say_what_was_loaded(self) -> Self {
        let serial = u32::from(SERIAL).to_le_bytes();
        self.emit(&[
            &[0xba],
            &serial,
            &[0x48, 0x89, 0xf3],          // mov rbx, rsi: the zero page
            &[0x8b, 0xb3, 0x28, 2, 0, 0], // mov esi, [rbx + cmd_line_ptr]
            &[0xac, 0x84, 0xc0, 0x74, 3], // lodsb; test al, al; jz past the loop
            &[0xee, 0xeb, 0xf8],          // out dx, al; jmp to the loop
            &[0x8b, 0x8b, 0x1c, 2, 0, 0], // mov ecx, [rbx + ramdisk_size]
            &[0x8b, 0xb3, 0x18, 2, 0, 0], // mov esi, [rbx + ramdisk_image]
            &[0xac, 0xee, 0xe2, 0xfc],    // lodsb; out dx, al; loop
        ])
    }

    /// Writes what it reads from the serial port back, up to and including a line feed.
    pub(crate) fn echo(self) -> Self {
        // again: in al, LINE_STATUS; test al, 1; jz again;
        // in al, SERIAL; out dx, al; cmp al, '\n'; jnz again
        self.in8(LINE_STATUS)
            .emit(&[&[0xa8, 1, 0x74, 0xf6]])
            .in8(SERIAL)
            .emit(&[&[0xee, 0x3c, b'\n', 0x75, 0xeb]])
    }

    /// Reads a port until a bit of `mask` is set.
    pub(crate) fn until(self, port: u16, mask: u8) -> Self {
        // again: in al, port; test al, mask; jz again
        self.in8(port).emit(&[&[0xa8, mask, 0x74, 0xf6]])
    }

    /// Routes pin `pin` of the I/O APIC to [`VECTOR`], level-triggered.
    pub(crate) fn route(self, pin: u32) -> Self {
        const LEVEL: u32 = 1 << 15;
        self.write32(APIC_SPURIOUS, 0x1ff)
            .write32(IO_APIC_SELECT, 0x10 + 2 * pin + 1)
            .write32(IO_APIC_DATA, 0)
            .write32(IO_APIC_SELECT, 0x10 + 2 * pin)
            .write32(IO_APIC_DATA, u32::from(VECTOR) | LEVEL)
    }

    /// Says `I` at each interrupt, for ever.
    pub(crate) fn take_interrupts(self) -> Self {
        let pointer = BASE + u32::try_from(TABLE_POINTER).unwrap();
        // mov esp, end; mov edi, pointer; lidt [rdi]; again: sti; hlt; jmp again
        self.emit(&[
            &[0xbc],
            &(BASE + LEN).to_le_bytes(),
            &[0xbf],
            &pointer.to_le_bytes(),
            &[0x0f, 0x01, 0x1f],
            &[0xfb, 0xf4, 0xeb, 0xfc],
        ])
    }

    /// Has the second vCPU say `A` and power off.
    pub(crate) fn second_powers_off(self) -> Self {
        // mov dx, SERIAL; mov al, 'A'; out dx, al; mov dx, SLEEP; mov al, off; out dx, al; hlt
        self.start_second([
            0xba, 0xf8, 3, 0xb0, b'A', 0xee, 0xba, 0, 6, 0xb0, 0x34, 0xee, 0xf4, 0, 0, 0,
        ])
    }

    /// Has the second vCPU go where a PC starts.
    pub(crate) fn second_goes_to_the_reset_vector(self) -> Self {
        // ljmp 0xf000:0xfff0
        self.start_second([0xea, 0xf0, 0xff, 0, 0xf0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// Starts the second vCPU with `code`, in real mode.
    fn start_second(self, code: [u8; 16]) -> Self {
        const AT: u32 = 0x1000;
        let words = code.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
        let places = (AT..).step_by(4);
        let kernel = places.zip(words).fold(self, |kernel, (at, word)| kernel.write32(at, word));
        kernel
            .write32(APIC_SPURIOUS, 0x1ff)
            .write32(APIC_TARGET, 1 << 24)
            .write32(APIC_COMMAND, 0x4500)
            .write32(APIC_TARGET, 1 << 24)
            .write32(APIC_COMMAND, 0x4600 | AT >> 12)
    }

    pub(crate) fn power_off(self) -> Self {
        self.out8(SLEEP, 5 << 2 | 1 << 5)
    }

    pub(crate) fn reset(self) -> Self {
        self.out8(RESET, 1)
    }

    /// `ud2`, which without an interrupt table shuts the machine down.
    pub(crate) fn undefined(self) -> Self {
        self.emit(&[&[0x0f, 0x0b]])
    }

    /// `jmp` to itself.
    pub(crate) fn hang(self) -> Self {
        self.emit(&[&[0xeb, 0xfe]])
    }

    /// `cli; hlt`, for ever.
    pub(crate) fn halt(self) -> Self {
        self.emit(&[&[0xfa, 0xf4, 0xeb, 0xfd]])
    }

    /// The vmlinux. If the code comes to its end, it halts.
    pub(crate) fn file(self) -> NamedTempFile {
        let mut image = self.halt().0;
        assert!(image.len() <= HANDLER);
        image.resize(TABLE + 16 * (usize::from(VECTOR) + 1), 0);
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        // push rax, rdx, rdi; say `I`; end of interrupt; pop them; iretq
        let handler = Self::new().emit(&[&[0x50, 0x52, 0x57]]).say("I").write32(APIC_EOI, 0);
        put(HANDLER, &handler.emit(&[&[0x5f, 0x5a, 0x58, 0x48, 0xcf]]).0);
        let place = |at: usize| u64::from(BASE) + u64::try_from(at).unwrap();
        put(TABLE_POINTER, &0xfff_u16.to_le_bytes());
        put(TABLE_POINTER + 2, &place(TABLE).to_le_bytes());
        let handler = place(HANDLER).to_le_bytes();
        let gate = TABLE + 16 * usize::from(VECTOR);
        put(gate, &[handler[0], handler[1], 0x10, 0, 0, 0x8e, handler[2], handler[3]]);
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(&elf(&image)).unwrap();
        file
    }
}

fn elf(image: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let (base, len) = (u64::from(BASE), u64::try_from(image.len()).unwrap());
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64
    [base, 64, 0].iter().for_each(|value| elf.extend(value.to_le_bytes()));
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 7, 0, 0, 0]); // to be loaded
    [HEADERS, base, base, len, LEN.into(), 4096]
        .iter()
        .for_each(|value| elf.extend(value.to_le_bytes()));
    elf.extend(image);
    elf
}

/// A console that can be looked at.
#[derive(Clone, Default)]
pub(crate) struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    /// What was written since this was called last.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
