/* A server that makes its system calls by itself: no symbol of libc is asked, so only a filter in the kernel
 * sees them. And libc's own functions that make such calls inside.
 *
 * inline PORT. Each connection sends letters; each is answered with lines. What follows `=` in a line is not
 * the same natively. `inline vdso` tells what a program that was executed sees.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <ftw.h>
#include <glob.h>
#include <netdb.h>
#include <netinet/in.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long in(long number, ...)
{
    va_list list;
    long a[6];
    va_start(list, number);
    for (int at = 0; at < 6; at++)
        a[at] = va_arg(list, long);
    va_end(list);
    register long r10 asm("r10") = a[3];
    register long r8 asm("r8") = a[4];
    register long r9 asm("r9") = a[5];
    long result;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}

#define CALL(number, ...) in(SYS_##number, ##__VA_ARGS__, 0L, 0L, 0L, 0L, 0L, 0L)

static char answer[64 * 1024];
static size_t length;

static void say(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    length += vsnprintf(answer + length, sizeof answer - length, format, list);
    va_end(list);
}

static int64_t now(void)
{
    struct timespec time;
    CALL(clock_gettime, CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void clocks(void)
{
    int64_t before = now();
    struct timespec wait = {0, 10 * 1000 * 1000};
    long slept = CALL(nanosleep, &wait, NULL);
    struct timespec zero = {0, 0};
    long refused = CALL(clock_gettime, 99, &zero);
    int64_t after = now();
    say("slept %ld, long enough %d, no such clock %d\n", slept, after - before >= 10000000,
        refused == -EINVAL);
    struct timespec real;
    CALL(clock_gettime, CLOCK_REALTIME, &real);
    say("= %lld %lld.%09ld\n", (long long)after, (long long)real.tv_sec, real.tv_nsec);
}

static void chance(void)
{
    unsigned char bytes[16];
    long got = CALL(getrandom, bytes, sizeof bytes, 0);
    say("random bytes %ld\n=", got);
    for (size_t at = 0; at < sizeof bytes; at++)
        say(" %02x", bytes[at]);
    say("\n");
}

/* A lock made of a futex, taken by threads; who gets it in which order is up to the schedule. */
static int lock;
static int shared;
static char order[512];

static void acquire(void)
{
    while (__atomic_exchange_n(&lock, 2, __ATOMIC_ACQUIRE) != 0)
        CALL(futex, &lock, FUTEX_WAIT_PRIVATE, 2, NULL);
}

static void release(void)
{
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
    CALL(futex, &lock, FUTEX_WAKE_PRIVATE, 1);
}

static void *racer(void *name)
{
    for (int round = 0; round < 25; round++) {
        acquire();
        order[shared++] = *(char *)name;
        CALL(sched_yield);
        release();
    }
    return NULL;
}

static void futexes(void)
{
    pthread_t threads[4];
    char names[4] = "abcd";
    shared = 0;
    for (int at = 0; at < 4; at++)
        pthread_create(&threads[at], NULL, racer, &names[at]);
    for (int at = 0; at < 4; at++)
        pthread_join(threads[at], NULL);
    struct timespec soon = {0, 5 * 1000 * 1000};
    int word = 1;
    long late = CALL(futex, &word, FUTEX_WAIT_PRIVATE, 1, &soon);
    long wrong = CALL(futex, &word, FUTEX_WAIT_PRIVATE, 2, NULL);
    say("counted %d, late %d, wrong %d\n= %.*s\n", shared, late == -ETIMEDOUT, wrong == -EAGAIN,
        shared, order);
}

static void children(void)
{
    int pipes[2], status = 0;
    char word[8] = "";
    CALL(pipe2, pipes, 0);
    long child = CALL(fork);
    if (child == 0) {
        CALL(write, pipes[1], "child", 5);
        CALL(exit_group, 7);
    }
    long got = CALL(read, pipes[0], word, sizeof word - 1);
    long ended = CALL(wait4, child, &status, 0, NULL);
    say("read %ld %s, the child %d, status %d\n", got, word, ended == child, WEXITSTATUS(status));
    child = CALL(clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0)
        for (;;)
            CALL(pause);
    long none = CALL(wait4, child, &status, WNOHANG, NULL);
    long killed = CALL(kill, child, SIGTERM);
    ended = CALL(wait4, child, &status, 0, NULL);
    say("none yet %ld, killed %ld, the child %d, signal %d\n", none, killed, ended == child,
        WTERMSIG(status));
    say("myself %d, thread %d, nobody %d\n", CALL(getpid) == getpid(), CALL(gettid) == gettid(),
        CALL(wait4, -1, &status, 0, NULL) == -ECHILD);
    say("= %ld %ld\n", CALL(getpid), child);
    CALL(close, pipes[0]);
    CALL(close, pipes[1]);
}

static void readiness(void)
{
    int pipes[2];
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 5}, found = {0};
    CALL(pipe, pipes);
    long set = CALL(epoll_create1, EPOLL_CLOEXEC);
    CALL(epoll_ctl, set, EPOLL_CTL_ADD, pipes[0], &event);
    long before = CALL(epoll_wait, set, &found, 1, 5);
    CALL(write, pipes[1], "x", 1);
    long after = CALL(epoll_wait, set, &found, 1, -1);
    say("ready %ld, then %ld: %u\n", before, after, found.data.u32);
    CALL(close, set);
    CALL(close, pipes[0]);
    CALL(close, pipes[1]);
}

struct action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    unsigned long mask;
};

/* What the kernel returns to from a handler. */
extern void back(void);
__asm__(".text\nback: mov $15, %rax\n syscall\n");
#define RESTORER 0x04000000

static volatile int seen;
static void see(int signal) { seen = signal; }

static void signals(void)
{
    struct action mine = {see, RESTORER, back, 0}, before = {0};
    unsigned long all = ~0UL, none = 0, old = 0;
    /* The filter's own signal is asked for as well. */
    long system_call = CALL(rt_sigaction, SIGSYS, &mine, &before, 8);
    long user = CALL(rt_sigaction, SIGUSR1, &mine, &before, 8);
    long blocked = CALL(rt_sigprocmask, SIG_SETMASK, &all, &old, 8);
    long process = CALL(getpid), thread = CALL(gettid);
    long sent = CALL(tgkill, process, thread, SIGUSR1);
    int held = seen == 0;
    long cleared = CALL(rt_sigprocmask, SIG_SETMASK, &none, &old, 8);
    say("set %ld %ld, blocked %ld, sent %ld, held %d, cleared %ld, seen %d\n", system_call, user,
        blocked, sent, held, cleared, seen);
    say("was blocked %d %d\n", (old >> (SIGSYS - 1) & 1) == 1, (old >> (SIGKILL - 1) & 1) == 0);
    seen = 0;
    raise(SIGSYS);
    say("the filter's signal, by hand: %d\n", seen);
    seen = 0;
}

static FILE *journal;

static void *writer(void *name)
{
    for (int round = 0; round < 200; round++) {
        fprintf(journal, "%s %d\n", (char *)name, round);
        fflush(journal);
    }
    return NULL;
}

static int visit(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    (void)status, (void)kind;
    say(" %s", path + at->base);
    return 0;
}

/* What libc does inside: streams with their locks, directories, names, host names. */
static void inside(void)
{
    pthread_t threads[3];
    char *names[3] = {"first", "second", "third"}, line[64];
    unsigned long mixed = 5381;
    int lines = 0;
    journal = fopen("journal", "w+");
    for (int at = 0; at < 3; at++)
        pthread_create(&threads[at], NULL, writer, names[at]);
    for (int at = 0; at < 3; at++)
        pthread_join(threads[at], NULL);
    rewind(journal);
    while (fgets(line, sizeof line, journal)) {
        lines++;
        for (char *at = line; *at; at++)
            mixed = mixed * 33 + *at;
    }
    fclose(journal);
    say("lines %d\n= %lx\n", lines, mixed);
    mkdir("tree", 0700);
    for (int at = 0; at < 40; at++) {
        char path[32];
        snprintf(path, sizeof path, "tree/%c%d", 'a' + at * 7 % 26, at * 31 % 97);
        fclose(fopen(path, "w"));
    }
    say("=");
    nftw("tree", visit, 8, FTW_PHYS);
    glob_t found;
    glob("tree/*", GLOB_NOSORT, NULL, &found);
    for (size_t at = 0; at < found.gl_pathc; at++)
        say(" %s", found.gl_pathv[at]);
    say("\nfound %zu\n", found.gl_pathc);
    globfree(&found);
    char *name = tempnam(".", "t");
    say("= %s\n", name);
    free(name);
    struct addrinfo *addresses, hints = {.ai_socktype = SOCK_STREAM};
    int failed = getaddrinfo("127.0.0.1", "80", &hints, &addresses);
    say("host %d %d\n", failed, addresses->ai_family == AF_INET);
    freeaddrinfo(addresses);
    size_t room = 0;
    char *text = NULL;
    FILE *stream = popen("echo one; echo two", "r");
    while (getline(&text, &room, stream) > 0)
        say("got %s", text);
    say("status %d\n", WEXITSTATUS(pclose(stream)));
    free(text);
}

/* Programs that are executed, by an inline call and by libc. */
static void programs(const char *self)
{
    static const char *lists[][4] = {
        {"/bin/sh", "-c", "echo $((6 * 7)); /bin/echo from $(/bin/echo deep)", NULL},
        {"/proc/self/exe", "vdso", NULL},
    };
    lists[1][0] = self;
    for (int at = 0; at < 2; at++) {
        int pipes[2], status = 0;
        char text[512];
        long got;
        CALL(pipe2, pipes, 0);
        long child = CALL(fork);
        if (child == 0) {
            char *environment[] = {"A=1", NULL};
            CALL(dup2, pipes[1], 1);
            CALL(close, pipes[0]);
            CALL(execve, lists[at][0], lists[at], environment);
            CALL(exit_group, 99);
        }
        CALL(close, pipes[1]);
        while ((got = CALL(read, pipes[0], text, sizeof text - 1)) > 0) {
            text[got] = 0;
            say("%s", text);
        }
        CALL(wait4, child, &status, 0, NULL);
        say("status %d\n", WEXITSTATUS(status));
        CALL(close, pipes[0]);
    }
}

/* In a program that was executed: does libc read clocks without a system call? */
static int executed(void)
{
    char *name = tempnam(".", "v");
    int64_t *random = (int64_t *)getauxval(AT_RANDOM);
    struct timespec time;
    CALL(clock_gettime, CLOCK_REALTIME, &time);
    printf("= vdso %d, name %s, random %llx, time %lld.%09ld\n", getauxval(AT_SYSINFO_EHDR) != 0, name,
           (long long)*random, (long long)time.tv_sec, time.tv_nsec);
    return 0;
}

static void hot(void)
{
    for (int at = 0; at < 5000; at++)
        CALL(getppid);
    say("done\n");
}

int main(int count, char **words)
{
    if (count > 1 && strcmp(words[1], "vdso") == 0)
        return executed();
    struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(words[count - 1]))};
    int yes = 1;
    long listener = CALL(socket, AF_INET6, SOCK_STREAM, 0);
    CALL(setsockopt, listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (CALL(bind, listener, &here, sizeof here) != 0 || CALL(listen, listener, 16) != 0)
        return 1;
    for (;;) {
        char letter;
        long client = CALL(accept4, listener, NULL, NULL, 0);
        while (CALL(read, client, &letter, 1) == 1 && letter != '\n') {
            length = 0;
            switch (letter) {
            case 't': clocks(); break;
            case 'r': chance(); break;
            case 'f': futexes(); break;
            case 'c': children(); break;
            case 'e': readiness(); break;
            case 's': signals(); break;
            case 'i': inside(); break;
            case 'x': programs(words[0]); break;
            case 'h': hot(); break;
            case 'u': say("unknown %ld\n", in(500, 0L, 0L, 0L, 0L, 0L, 0L)); break;
            }
            for (size_t sent = 0; sent < length;) {
                long more = CALL(sendto, client, answer + sent, length - sent, 0, NULL, 0);
                if (more <= 0)
                    break;
                sent += more;
            }
        }
        CALL(close, client);
    }
}
