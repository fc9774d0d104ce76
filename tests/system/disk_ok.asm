; The disk of a test machine: says that it was reached, then ends QEMU with status 33.
bits 16
org 0x7c00

start:
        xor ax, ax
        mov ds, ax
        cld
        mov si, message
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

        times 510 - ($ - $$) db 0
        dw 0xaa55
        times 1024 * 1024 - ($ - $$) db 0       ; SeaBIOS cannot read a disk under one cylinder (504 KiB)
