/* A server that reads the processor's time stamp counter in the ways that compilers and programs do, and
 * says what it read. */
#include "server.h"
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
/* What can be rewritten. */
extern const unsigned char shifted[], relative[];
uint64_t read_shifted(void), read_relative(void), read_called(void), read_jumped(int);
static uint64_t marker __attribute__((used)) = 7;
__asm__(".text\n"
        "read_shifted:\n .globl read_shifted\n .cfi_startproc\n"
        "shifted: rdtsc\n shl $32, %rdx\n or %rdx, %rax\n ret\n .cfi_endproc\n"
        "read_relative:\n .globl read_relative\n .cfi_startproc\n"
        "relative: rdtsc\n mov marker(%rip), %rcx\n shl $32, %rdx\n or %rdx, %rax\n"
        " cmp $7, %rcx\n jne 1f\n ret\n1: ud2\n .cfi_endproc\n"
        /* What can't: the next instruction depends on where it is. */
        "read_called:\n .globl read_called\n .cfi_startproc\n"
        " rdtsc\n call 1f\n ret\n1: shl $32, %rdx\n or %rdx, %rax\n ret\n .cfi_endproc\n"
        /* Nor where something jumps to the instruction after it. */
        "read_jumped:\n .globl read_jumped\n .cfi_startproc\n"
        " test %edi, %edi\n jne 1f\n rdtsc\n2: shl $32, %rdx\n or %rdx, %rax\n ret\n"
        "1: xor %eax, %eax\n xor %edx, %edx\n jmp 2b\n .cfi_endproc\n");

static uint64_t read_with_processor(void)
{
    uint32_t low, high, processor;
    __asm__ volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(processor));
    if (processor != 0)
        say("processor %u\n", processor);
    return (uint64_t)high << 32 | low;
}

static void *read_in_thread(void *result)
{
    *(uint64_t *)result = read_shifted();
    return NULL;
}

static sigjmp_buf back;
static volatile sig_atomic_t faults, depth;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    (void)context;
    faults += signal == SIGSEGV && info->si_addr == (void *)16;
    depth = read_called() > 0;
    siglongjmp(back, 1);
}

/* The program's own faults are still its own. */
static void fault(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    faults = 0;
    for (int round = 0; round < 2; round++)
        if (sigsetjmp(back, 1) == 0)
            *(volatile int *)16 = 1;
    say("faults %d, counter read in the handler %d\n", (int)faults, (int)depth);
    action = (struct sigaction){.sa_handler = SIG_DFL};
    sigaction(SIGSEGV, &action, NULL);
}

static int spawned(void)
{
    pid_t pid;
    char *arguments[] = {"true", NULL};
    int status = -1;
    if (posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ) == 0)
        waitpid(pid, &status, 0);
    return status;
}

static int executed(void)
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        uint64_t before = read_shifted(), after = read_called();
        if (after > before)
            execl("/bin/sh", "sh", "-c", "exit 3", (char *)NULL);
        _exit(1);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void round_of_tests(void)
{
    uint64_t values[] = {read_shifted(),        read_relative(), read_called(), read_jumped(0),
                         read_with_processor(), 0,               read_shifted()};
    pthread_t thread;
    pthread_create(&thread, NULL, read_in_thread, &values[5]);
    pthread_join(thread, NULL);
    values[6] = read_shifted();
    int growing = 1;
    for (int at = 1; at < 7; at++)
        growing &= values[at] > values[at - 1];
    say("growing %d, jumped %d\n", growing, (int)read_jumped(1));
    /* It ends, though nothing else happens meanwhile. */
    uint64_t start = read_shifted();
    while (read_shifted() - start < 1000000)
        ;
    uint64_t ticks = read_shifted(), time = nanoseconds();
    struct timespec pause = {.tv_nsec = 20000000};
    nanosleep(&pause, NULL);
    ticks = read_shifted() - ticks;
    time = nanoseconds() - time;
    say("rate %d\n", ticks > time / 2);
    fault();
    int exits = executed();
    say("spawned %d, executed %d, system %d\n", spawned(), exits, WEXITSTATUS(system("exit 4")));
    /* Not the same natively. */
    say("= rewritten %d %d, counter %llu\n", shifted[0] == 0xE9, relative[0] == 0xE9,
        (unsigned long long)read_shifted());
}

static void answer(char request)
{
    (void)request;
    round_of_tests();
}

int main(int count, char **arguments)
{
    /* Which processor a native run is on is not for us to say: the first one, as when wrapped. */
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    sched_setaffinity(0, sizeof first, &first);
    serve(listen_on(arguments[count - 1], SOCK_CLOEXEC), SOCK_CLOEXEC, answer);
}
