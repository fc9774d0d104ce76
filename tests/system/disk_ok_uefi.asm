; \EFI\BOOT\BOOTX64.EFI of a test machine's disk: says that it was reached, then ends QEMU with status 33.
; A PE32+ image by hand, with one section; nothing in it depends on where it is loaded.
bits 64
org 0

align_to equ 0x200

        db "MZ"
        times 0x3c - ($ - $$) db 0
        dd pe
pe:
        db "PE", 0, 0
        dw 0x8664               ; x86-64
        dw 1                    ; sections
        dd 0, 0, 0
        dw optional_end - optional
        dw 0x0206               ; executable, without line numbers, with debug information stripped
optional:
        dw 0x020b               ; PE32+
        db 0, 0
        dd code_end - code      ; size of code
        dd 0, 0
        dd code                 ; entry point
        dd code
        dq 0x400000             ; wanted base
        dd align_to, align_to   ; in memory and in the file
        dw 0, 0, 0, 0, 0, 0
        dd 0
        dd code_end             ; size of the image
        dd code                 ; size of the headers
        dd 0
        dw 10                   ; subsystem: EFI application
        dw 0
        dq 0, 0, 0, 0
        dd 0
        dd 6                    ; data directories, all empty
        times 6 dq 0
optional_end:
        db ".text", 0, 0, 0
        dd code_end - code, code, code_end - code, code
        dd 0, 0
        dw 0, 0
        dd 0x60000020           ; code, readable, executable
        times align_to - ($ - $$) db 0

code:
        cld
        lea rsi, [rel message]
next:
        lodsb
        test al, al
        jz done
        mov bl, al
        mov dx, 0x3fd           ; line status of COM1
busy:
        in al, dx
        test al, 0x20           ; transmitter empty
        jz busy
        mov al, bl
        mov dx, 0x3f8
        out dx, al
        jmp next
done:
        mov dx, 0xf4            ; isa-debug-exit: QEMU ends with 2 * value + 1
        mov al, 0x10
        out dx, al
halt:
        hlt
        jmp halt

message: db 13, 10, "LOCAL-DISK-OK", 13, 10, 0
        times align_to - ($ - code) db 0
code_end:
