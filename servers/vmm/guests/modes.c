/* modes: what of the privileged architecture the monitor does by hand, tried by a guest. It says what
   it finds, which is the same on every machine that is right. */

#include "guest.h"

#define INTERRUPT (1UL << 63)
#define MPP (3UL << 11)
#define PAGE 4096
#define NOWHERE 0x90000000UL
#define MAPPED 0x40000000UL   /* virtual: a page that can only be read, then one that is not there */
#define MSIP (*(volatile u32 *)0x02000000)
#define MTIMECMP (*(volatile u64 *)0x02004000)
#define UART ((volatile u8 *)0x10000000)
#define PLIC_CLAIM (*(volatile u32 *)0x0c200004)
#define UART_IRQ 10

#define read(csr) ({ u64 v_; asm volatile("csrr %0, " #csr : "=r"(v_)); v_; })
#define write(csr, value) asm volatile("csrw " #csr ", %0" ::"r"((u64)(value)) : "memory")
#define set(csr, bits) asm volatile("csrs " #csr ", %0" ::"r"((u64)(bits)) : "memory")
#define clear(csr, bits) asm volatile("csrc " #csr ", %0" ::"r"((u64)(bits)) : "memory")

enum { USER, SUPERVISOR };

volatile u64 seen_cause, seen_value, seen_status; /* by the supervisor's handler */
static volatile u64 cause, value;                 /* by the machine's */
static volatile u64 after;                        /* where to go on after a jump to nowhere */
u64 saved[10];

void in_mode(u64 mode, void (*what)(void));
void in_mode_back(void);
void supervisor_trap(void);
void vectors(void);

/* `what` keeps the stack; an ecall with 77 in a7 returns to the caller of in_mode. */
asm(".text\n.globl in_mode, in_mode_back, supervisor_trap, vectors\n"
    "in_mode:\n"
    "  csrci mstatus, 8\n"
    "  lla t0, saved\n"
    "  sd ra, 0(t0)\n sd sp, 8(t0)\n sd s0, 16(t0)\n sd s1, 24(t0)\n sd s2, 32(t0)\n"
    "  sd s3, 40(t0)\n sd s4, 48(t0)\n sd s5, 56(t0)\n sd s6, 64(t0)\n sd s7, 72(t0)\n"
    "  li t1, 0x1800\n csrc mstatus, t1\n"
    "  slli a0, a0, 11\n csrs mstatus, a0\n"
    "  csrw mepc, a1\n"
    "  lla ra, 1f\n"
    "  mret\n"
    "1: li a7, 77\n ecall\n"
    "in_mode_back:\n"
    "  csrci mstatus, 8\n"
    "  lla t0, saved\n"
    "  ld ra, 0(t0)\n ld sp, 8(t0)\n ld s0, 16(t0)\n ld s1, 24(t0)\n ld s2, 32(t0)\n"
    "  ld s3, 40(t0)\n ld s4, 48(t0)\n ld s5, 56(t0)\n ld s6, 64(t0)\n ld s7, 72(t0)\n"
    "  ret\n"
    ".balign 4\n"
    "supervisor_trap:\n"
    "  addi sp, sp, -16\n sd t0, 0(sp)\n sd t1, 8(sp)\n"
    "  csrr t0, scause\n lla t1, seen_cause\n sd t0, 0(t1)\n"
    "  csrr t1, stval\n lla t0, seen_value\n sd t1, 0(t0)\n"
    "  csrr t1, sstatus\n lla t0, seen_status\n sd t1, 0(t0)\n"
    "  csrr t0, scause\n"
    "  bltz t0, 2f\n"
    "  li t1, 8\n bne t0, t1, 1f\n"
    "  li t1, 77\n bne a7, t1, 1f\n"
    "  ecall\n" /* it wants to go back to machine mode */
    "1: li t1, 12\n beq t0, t1, 3f\n"
    "  csrr t0, sepc\n lhu t1, 0(t0)\n andi t1, t1, 3\n addi t1, t1, -3\n"
    "  addi t0, t0, 2\n bnez t1, 4f\n addi t0, t0, 2\n"
    "4: csrw sepc, t0\n j 5f\n"
    "3: csrw sepc, ra\n j 5f\n" /* a jump to nowhere was a call */
    "2: csrw sie, zero\n"
    "5: ld t0, 0(sp)\n ld t1, 8(sp)\n addi sp, sp, 16\n"
    "  sret\n"
    ".balign 256\n"
    "vectors:\n"
    "  .option push\n .option norvc\n"
    "  j trap_entry\n j trap_entry\n j trap_entry\n j 1f\n j trap_entry\n j trap_entry\n"
    "  j trap_entry\n j trap_entry\n j trap_entry\n j trap_entry\n j trap_entry\n j trap_entry\n"
    "  .option pop\n"
    "1: addi sp, sp, -16\n sd t0, 0(sp)\n"
    "  li t0, 0x02000000\n sw zero, 0(t0)\n"
    "  lla t0, vectored\n sd t0, 0(t0)\n"
    "  ld t0, 0(sp)\n addi sp, sp, 16\n mret\n");

volatile u64 vectored;
extern void trap_entry(void);

u64 exception(u64 why, u64 pc, u64 what)
{
    cause = why;
    value = what;
    if (why == 8 || why == 9) { /* the end of in_mode */
        set(mstatus, MPP);
        return (u64)in_mode_back;
    }
    if (why == 1)
        return after;
    return pc + ((*(volatile u16 *)pc & 3) == 3 ? 4 : 2);
}

static void say(const char *what, u64 number)
{
    put(what);
    put(" ");
    if (number & INTERRUPT)
        put("interrupt ");
    put_u64(number & ~INTERRUPT);
    put("\n");
}

static void say_value(const char *what)
{
    put(what);
    put(" ");
    put_u64(cause);
    put(" at ");
    put_hex(value);
    put("\n");
}

/* --- machine mode ------------------------------------------------------------------------------- */

static void exceptions(void)
{
    asm volatile("ecall");
    say("ecall", cause);
    asm volatile("ebreak");
    say("ebreak", cause);
    asm volatile(".word 0");
    say("illegal", cause);
    asm volatile("csrw mvendorid, zero");
    say("read-only register", cause);
    asm volatile("ld t0, 16(%0)" ::"r"(NOWHERE) : "t0");
    say_value("load");
    asm volatile(".option push\n.option norvc\nsb t0, -1(%0)\n.option pop" ::"r"(NOWHERE));
    say_value("store");
    asm volatile("lla t0, 1f\nsd t0, %0\njr %1\n1:" : "=m"(after) : "r"(NOWHERE) : "t0", "memory");
    say_value("jump");
}

static void polling(void)
{
    interrupts_off();
    timer_at(now() + TICKS_PER_MS);
    while (!(read(mip) & 1 << 7))
        asm volatile("wfi");
    MTIMECMP = ~0UL;
    while (read(mip) & 1 << 7)
        ;
    put("timer moved\n");
    listen_irq(UART_IRQ);
    UART[1] = 2; /* it says that there is room */
    while (!(read(mip) & 1 << 11))
        asm volatile("wfi");
    say("claimed", PLIC_CLAIM);
    say("UART says", UART[2] & 15);
    PLIC_CLAIM = UART_IRQ;
    UART[1] = 0;
    write(mie, 0);
}

static void vectoring(void)
{
    write(mtvec, (u64)vectors | 1);
    set(mie, 1 << 3);
    interrupts_on();
    MSIP = 1;
    while (!vectored)
        ;
    interrupts_off();
    asm volatile("ecall");
    say("vectored; ecall", cause);
    write(mtvec, trap_entry);
    write(mie, 0);
}

/* --- supervisor and user mode ------------------------------------------------------------------- */

static u64 results[8];

static void illegal_here(void)
{
    asm volatile(".word 0");
    results[0] = seen_cause;
    results[1] = seen_status >> 8 & 1;
}

static void call_here(void)
{
    asm volatile("li a7, 1\necall" ::: "a7");
    results[0] = seen_cause;
    results[1] = seen_status >> 8 & 1;
}

static void time_here(void)
{
    u64 first, second;
    seen_cause = 0;
    asm volatile("rdtime %0" : "=r"(first));
    results[0] = seen_cause;
    asm volatile("rdtime %0" : "=r"(second));
    results[1] = second >= first;
}

static void software_here(void)
{
    seen_cause = 0;
    set(sie, 1 << 1);
    set(sstatus, 1 << 1);
    set(sip, 1 << 1);
    asm volatile("nop");
    results[0] = seen_cause;
    clear(sip, 1 << 1);
}

static void timer_here(void)
{
    seen_cause = 0;
    set(sstatus, 1 << 1);
    set(sie, 1 << 5);
    while (!seen_cause)
        asm volatile("wfi");
    results[0] = seen_cause;
    seen_cause = 0;
    clear(sstatus, 1 << 1);
    set(sie, 1 << 5);
    asm volatile("wfi"); /* pending, enabled, not taken: it does not wait */
    results[1] = seen_cause;
    set(sstatus, 1 << 1);
    asm volatile("nop");
    results[2] = seen_cause;
}

void tick(void) { set(mip, 1 << 5); }

static u64 root[512] __attribute__((aligned(PAGE))), middle[512] __attribute__((aligned(PAGE)));
static u64 leaf[512] __attribute__((aligned(PAGE))), page[512] __attribute__((aligned(PAGE)));

static u64 entry(const void *to, u64 bits) { return here(to) >> 12 << 10 | bits | 1; }

static void paging_here(void)
{
    volatile u64 *mapped = (volatile u64 *)MAPPED;
    asm volatile("sfence.vma");
    seen_cause = 0;
    results[0] = mapped[5];
    results[1] = seen_cause;
    mapped[6] = 1;
    results[2] = seen_cause;
    results[3] = seen_value;
    (void)mapped[PAGE / 8 + 3];
    results[4] = seen_cause;
    results[5] = seen_value;
    ((void (*)(void))(MAPPED + 8))();
    results[6] = seen_cause;
    results[7] = seen_value;
}

static void supervise(void)
{
    write(pmpaddr0, ~0UL);
    write(pmpcfg0, 0x1f);
    write(stvec, supervisor_trap);
    write(medeleg, 1 << 2 | 1 << 3 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 15);
    write(mideleg, 1 << 1 | 1 << 5 | 1 << 9);
    in_mode(SUPERVISOR, illegal_here);
    say("illegal in supervisor mode", results[0]);
    say("came from supervisor mode", results[1]);
    in_mode(USER, call_here);
    say("ecall of a user", results[0]);
    say("came from supervisor mode", results[1]);
    write(mcounteren, 0);
    in_mode(SUPERVISOR, time_here);
    say("time not allowed", results[0]);
    write(mcounteren, 2);
    write(scounteren, 2);
    in_mode(USER, time_here);
    say("time allowed", results[0]);
    say("which goes on", results[1]);
    in_mode(SUPERVISOR, software_here);
    say("software", results[0]);
    timer_at(now() + TICKS_PER_MS);
    in_mode(SUPERVISOR, timer_here);
    say("timer", results[0]);
    say("while it is off", results[1]);
    say("when it is on again", results[2]);
    clear(mip, 1 << 5);
}

static void paged(void)
{
    root[2] = entry((void *)0x80000000UL, 0xce); /* a gigabyte as it is: read, write, execute */
    root[1] = entry(middle, 0);
    middle[0] = entry(leaf, 0);
    leaf[0] = entry(page, 0x42); /* read only */
    page[5] = 55;
    write(satp, 8UL << 60 | here(root) >> 12);
    in_mode(SUPERVISOR, paging_here);
    write(satp, 0);
    say("mapped word", results[0]);
    say("exception", results[1]);
    for (u32 at = 2; at < 8; at += 2) {
        cause = results[at];
        value = results[at + 1];
        say_value("page fault");
    }
}

int main(void)
{
    exceptions();
    polling();
    vectoring();
    supervise();
    paged();
    put("all modes done\n");
    return 0;
}
