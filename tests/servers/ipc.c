/* A server that tries what blocks in the kernel or lies there: locks on files, FIFOs, System V IPC. A letter
 * per connection says what, and it answers with what it saw. POSIX and Linux's manual pages fix every
 * answer, so a native run gives the same lines. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CHILDREN = 4, ROUNDS = 25 };

static int client;
static const char *self;
static char directory[200], path[256];

static void say(const char *format, ...)
{
    char line[1000];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (write(client, line, length) != length)
        exit(1);
}

static int reap(pid_t child)
{
    int status = -1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int opened(int flags) { return open(path, flags | O_RDWR | O_CREAT, 0600); }

static void on_alarm(int signal) { (void)signal; }

/* Interrupts a call that waits. Again and again, since the first may come before the call. */
static void interrupt_soon(void)
{
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every = {{0, 20000}, {0, 20000}};
    setitimer(ITIMER_REAL, &every, NULL);
}

static void interrupt_no_more(void)
{
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &never, NULL);
}

/* Adds one to the number at the start of a file, slowly. */
static void count_in(int file)
{
    unsigned number = 0;
    pread(file, &number, sizeof number, 0);
    sched_yield();
    number++;
    pwrite(file, &number, sizeof number, 0);
}

static unsigned counted(int file)
{
    unsigned number = 0;
    pread(file, &number, sizeof number, 0);
    return number;
}

/* Children that all do the same; how many of them ended well. */
static int all_do(void (*what)(int), int argument)
{
    pid_t children[CHILDREN];
    int well = 0;
    for (int at = 0; at < CHILDREN; at++) {
        children[at] = fork();
        if (children[at] == 0) {
            what(argument);
            _exit(0);
        }
    }
    for (int at = 0; at < CHILDREN; at++)
        well += reap(children[at]) == 0;
    return well;
}

/* ---- flock ---- */

static void flock_and_count(int unused)
{
    (void)unused;
    int file = opened(0);
    for (int round = 0; round < ROUNDS; round++) {
        flock(file, LOCK_EX);
        count_in(file);
        flock(file, LOCK_UN);
    }
}

/* What another descriptor of the file can get at once. */
static int refused(int operation)
{
    int file = opened(0);
    int result = flock(file, operation | LOCK_NB) == -1 ? errno == EWOULDBLOCK : 0;
    close(file);
    return result;
}

/* A child that takes the lock, says so, and lets go of it in some way once it is told to. */
static pid_t holder(int how, int tell[2])
{
    int said[2];
    char byte;
    pipe(said);
    pipe(tell);
    pid_t child = fork();
    if (child == 0) {
        close(tell[1]);
        FILE *stream = fopen(path, "r+e");
        int file = fileno(stream);
        flock(file, LOCK_EX);
        write(said[1], "x", 1);
        read(tell[0], &byte, 1);
        if (how == 'f')
            fclose(stream);
        if (how == 'e') {
            dup2(tell[0], 0);
            dup2(tell[0], 1);
            execl(self, self, "sleeper", NULL);
        }
        if (how == 'd')
            dup2(tell[0], file);
        if (how != 'x')
            read(tell[0], &byte, 1);
        _exit(0);
    }
    close(tell[0]);
    read(said[0], &byte, 1);
    close(said[0]);
    close(said[1]);
    return child;
}

static void flocks(void)
{
    int file = opened(O_TRUNC);
    say("children %d", all_do(flock_and_count, 0));
    say(" counted %u\n", counted(file));
    flock(file, LOCK_SH);
    say("shared: refused shared %d exclusive %d", refused(LOCK_SH), refused(LOCK_EX));
    flock(file, LOCK_EX);
    int twin = dup(file);
    close(file);
    say(", exclusive: refused %d, nonsense %d\n", refused(LOCK_SH),
        flock(twin, 77) == -1 && errno == EINVAL);
    close(twin);
    say("closed: refused %d\n", refused(LOCK_EX));
    for (const char *how = "xfed"; *how; how++) {
        int tell[2];
        pid_t child = holder(*how, tell);
        int before = refused(LOCK_SH);
        write(tell[1], "x", 1);
        file = opened(0);
        int got = flock(file, LOCK_EX);
        close(tell[1]);
        say("%c: refused %d then got %d", *how, before, got);
        say(", ended %d\n", reap(child));
        close(file);
    }
    int tell[2];
    pid_t child = holder('x', tell);
    file = opened(0);
    interrupt_soon();
    int result = flock(file, LOCK_EX);
    say("interrupted %d\n", result == -1 && errno == EINTR);
    interrupt_no_more();
    close(tell[1]);
    say("and then %d", flock(file, LOCK_EX));
    say(" %d\n", reap(child));
    close(file);
}

/* ---- record locks ---- */

static int record(int file, int command, int kind, off_t start, off_t length)
{
    struct flock lock = {.l_type = kind, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return fcntl(file, command, &lock);
}

static void record_and_count(int command)
{
    int file = opened(0);
    for (int round = 0; round < ROUNDS; round++) {
        record(file, command, F_WRLCK, 0, 4);
        count_in(file);
        record(file, F_SETLK, F_UNLCK, 0, 4);
    }
}

static void own_records_and_count(int unused)
{
    (void)unused;
    int file = opened(0);
    for (int round = 0; round < ROUNDS; round++) {
        record(file, F_OFD_SETLKW, F_WRLCK, 0, 4);
        count_in(file);
        record(file, F_OFD_SETLK, F_UNLCK, 0, 4);
    }
}

static void lockf_and_count(int unused)
{
    (void)unused;
    int file = opened(0);
    for (int round = 0; round < ROUNDS; round++) {
        lockf(file, F_LOCK, 4);
        count_in(file);
        lockf(file, F_ULOCK, 4);
    }
}

/* Parent and child each have a byte and want the other's: one of them is told. */
static void circle(void)
{
    int file = opened(0), ready[2], go[2];
    char byte;
    pipe(ready);
    pipe(go);
    record(file, F_SETLK, F_WRLCK, 10, 1);
    pid_t child = fork();
    if (child == 0) {
        file = opened(0);
        record(file, F_SETLK, F_WRLCK, 11, 1);
        write(ready[1], "x", 1);
        int told = record(file, F_SETLKW, F_WRLCK, 10, 1) == -1 && errno == EDEADLK;
        record(file, F_SETLK, F_UNLCK, 0, 0);
        _exit(told);
    }
    read(ready[0], &byte, 1);
    int told = record(file, F_SETLKW, F_WRLCK, 11, 1) == -1 && errno == EDEADLK;
    record(file, F_SETLK, F_UNLCK, 0, 0);
    say("circle: told %d\n", told + reap(child));
    close(ready[0]), close(ready[1]), close(go[0]), close(go[1]), close(file);
}

static void *take_own(void *argument)
{
    int *file = argument;
    return (void *)(intptr_t)record(*file, F_OFD_SETLKW, F_WRLCK, 0, 0);
}

static void records(void)
{
    int file = opened(O_TRUNC);
    int well = all_do(record_and_count, F_SETLKW);
    well += all_do(own_records_and_count, 0) + all_do(lockf_and_count, 0);
    say("children %d counted %u\n", well, counted(file));
    int ready[2];
    char byte;
    pipe(ready);
    pid_t child = fork();
    if (child == 0) {
        int own = opened(0);
        record(own, F_SETLK, F_WRLCK, 100, 10);
        record(own, F_SETLK, F_RDLCK, 105, 5);
        write(ready[1], "x", 1);
        pause();
    }
    read(ready[0], &byte, 1);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 102};
    fcntl(file, F_GETLK, &lock);
    say("held by the child %d from %d for %d kind %d\n", lock.l_pid == child, (int)lock.l_start,
        (int)lock.l_len, lock.l_type == F_WRLCK);
    say("read %d write %d", record(file, F_SETLK, F_RDLCK, 106, 1),
        record(file, F_SETLK, F_WRLCK, 106, 1) == -1 && (errno == EAGAIN || errno == EACCES));
    lseek(file, 100, SEEK_SET);
    say(" test %d", lockf(file, F_TEST, 1) == -1 && errno == EACCES);
    say(" try %d\n", lockf(file, F_TLOCK, 1) == -1 && (errno == EAGAIN || errno == EACCES));
    interrupt_soon();
    int result = record(file, F_SETLKW, F_WRLCK, 100, 1);
    say("interrupted %d\n", result == -1 && errno == EINTR);
    interrupt_no_more();
    kill(child, SIGKILL);
    say("got when it is dead %d", record(file, F_SETLKW, F_WRLCK, 100, 1));
    say(" %d\n", reap(child));
    /* Closing any descriptor of the file gives up all of a process's locks. */
    close(opened(0));
    child = fork();
    if (child == 0)
        _exit(record(opened(0), F_SETLK, F_WRLCK, 0, 0) == 0 ? 0 : 1);
    say("given up by another close %d\n", reap(child));
    circle();
    int other = opened(0);
    record(file, F_OFD_SETLK, F_WRLCK, 0, 0);
    say("own: refused %d", record(other, F_OFD_SETLK, F_RDLCK, 0, 0) == -1 && errno == EAGAIN);
    lock = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
    fcntl(other, F_OFD_GETLK, &lock);
    pthread_t thread;
    void *got;
    pthread_create(&thread, NULL, take_own, &other);
    sched_yield();
    record(file, F_OFD_SETLK, F_UNLCK, 0, 0);
    pthread_join(thread, &got);
    say(" held by %d, then %d\n", lock.l_pid, (int)(intptr_t)got);
    close(file), close(other), close(ready[0]), close(ready[1]);
}

/* ---- FIFOs ---- */

static void *write_to_fifo(void *argument)
{
    int file = creat(path, 0600);
    dprintf(file, "by %s", (char *)argument);
    close(file);
    return NULL;
}

static void say_all(const char *what, int file)
{
    char text[200];
    ssize_t got, all = 0;
    while ((got = read(file, text + all, sizeof text - 1 - all)) > 0)
        all += got;
    text[all] = 0;
    say("%s: %s, end %zd\n", what, text, got);
}

static void fifos(void)
{
    say("made %d", mkfifo(path, 0600));
    say(" again %d\n", mkfifo(path, 0600) == -1 && errno == EEXIST);
    say("nobody reads %d\n", open(path, O_WRONLY | O_NONBLOCK) == -1 && errno == ENXIO);
    pthread_t thread;
    pthread_create(&thread, NULL, write_to_fifo, "a thread");
    int file = open(path, O_RDONLY);
    say("blocks %d\n", (fcntl(file, F_GETFL) & O_NONBLOCK) == 0);
    say_all("from a thread", file);
    close(file);
    pthread_join(thread, NULL);
    pid_t child = fork();
    if (child == 0) {
        file = open(path, O_RDONLY);
        say_all("in a child", file);
        _exit(0);
    }
    write_to_fifo("its parent");
    say("reader %d\n", reap(child));
    child = fork();
    if (child == 0) {
        FILE *stream = fopen(path, "w");
        fprintf(stream, "a line\nand a half");
        _exit(fclose(stream));
    }
    FILE *stream = fopen(path, "r");
    char line[100];
    while (fgets(line, sizeof line, stream))
        say("stream: %s\n", line);
    say("its end %d\n", feof(stream) != 0);
    fclose(stream);
    say("writer %d\n", reap(child));
    file = open(path, O_RDWR);
    write(file, "to myself", 9);
    int reader = open(path, O_RDONLY);
    close(file);
    say_all("both ways", reader);
    close(reader);
    interrupt_soon();
    say("read interrupted %d\n", open(path, O_RDONLY) == -1 && errno == EINTR);
    say("write interrupted %d\n", open(path, O_WRONLY) == -1 && errno == EINTR);
    interrupt_no_more();
    int ends[2];
    char name[64];
    pipe(ends);
    write(ends[1], "kept", 4);
    snprintf(name, sizeof name, "/proc/self/fd/%d", ends[0]);
    close(ends[1]);
    reader = open(name, O_RDONLY);
    say_all("a pipe again", reader);
    close(reader), close(ends[0]);
}

/* ---- semaphores ---- */

union value {
    int number;
    struct semid_ds *status;
    unsigned short *all;
};

static int change(int set, int number, int by, int flags)
{
    struct sembuf operation = {number, by, flags};
    return semop(set, &operation, 1);
}

static int counter;

static void semaphore_and_count(int set)
{
    for (int round = 0; round < ROUNDS; round++) {
        change(set, 0, -1, SEM_UNDO);
        count_in(counter);
        /* The last one leaves it to the end of its process. */
        if (round < ROUNDS - 1)
            change(set, 0, 1, SEM_UNDO);
    }
}

static void wait_for_sleepers(int set, int number, int what, int count)
{
    while (semctl(set, number, what) != count)
        usleep(1000);
}

static pid_t sleeper(int set, int number, int by)
{
    pid_t child = fork();
    if (child == 0)
        _exit(change(set, number, by, 0) == 0 ? 0 : errno == EIDRM ? 43 : 1);
    return child;
}

static void semaphores(void)
{
    counter = opened(O_TRUNC);
    key_t key = ftok(path, 's');
    int set = semget(key, 3, IPC_CREAT | IPC_EXCL | 0600);
    say("made %d again %d same %d", set >= 0,
        semget(key, 3, IPC_CREAT | IPC_EXCL | 0600) == -1 && errno == EEXIST,
        semget(key, 0, 0) == set);
    say(" too many %d none %d\n", semget(key, 4, 0) == -1 && errno == EINVAL,
        semget(key + 1, 1, 0) == -1 && errno == ENOENT);
    unsigned short values[3] = {1, 5, 0};
    semctl(set, 0, SETALL, (union value){.all = values});
    say("children %d", all_do(semaphore_and_count, set));
    say(" counted %u value %d by another %d\n", counted(counter), semctl(set, 0, GETVAL),
        semctl(set, 0, GETPID) != getpid());
    struct sembuf both[2] = {{1, -5, 0}, {0, -2, IPC_NOWAIT}};
    say("as a whole %d", semop(set, both, 2) == -1 && errno == EAGAIN);
    semctl(set, 0, GETALL, (union value){.all = values});
    say(" %d %d %d\n", values[0], values[1], values[2]);
    pid_t children[3] = {sleeper(set, 2, -2), sleeper(set, 2, -1), sleeper(set, 1, 0)};
    wait_for_sleepers(set, 2, GETNCNT, 2);
    wait_for_sleepers(set, 1, GETZCNT, 1);
    change(set, 2, 3, 0);
    say("slept %d %d", reap(children[0]), reap(children[1]));
    change(set, 1, -5, 0);
    say(" %d, left %d\n", reap(children[2]), semctl(set, 2, GETNCNT) + semctl(set, 1, GETZCNT));
    struct timespec little = {0, 30000000}, wrong = {0, -1};
    struct sembuf one = {2, -1, 0};
    say("timed out %d", semtimedop(set, &one, 1, &little) == -1 && errno == EAGAIN);
    say(" nonsense %d\n", semtimedop(set, &one, 1, &wrong) == -1 && errno == EINVAL);
    interrupt_soon();
    say("interrupted %d\n", semop(set, &one, 1) == -1 && errno == EINTR);
    interrupt_no_more();
    one.sem_num = 3;
    say("errors %d", semop(set, &one, 1) == -1 && errno == EFBIG);
    say(" %d", change(set, 1, 32767, 0) == 0 && change(set, 1, 1, 0) == -1 && errno == ERANGE);
    say(" %d", semctl(set, 0, SETVAL, (union value){.number = 40000}) == -1 && errno == ERANGE);
    say(" %d\n", semop(set, both, 501) == -1 && errno == E2BIG);
    struct semid_ds status;
    semctl(set, 0, IPC_STAT, (union value){.status = &status});
    say("status %d mode %o mine %d key %d", (int)status.sem_nsems, status.sem_perm.mode,
        status.sem_perm.uid == geteuid(), status.sem_perm.__key == key);
    time_t now = time(NULL);
    say(" times %d %d\n", status.sem_otime <= now && status.sem_otime > now - 60,
        status.sem_ctime <= now && status.sem_ctime > now - 60);
    status.sem_perm.mode = 0640;
    semctl(set, 0, IPC_SET, (union value){.status = &status});
    semctl(set, 0, IPC_STAT, (union value){.status = &status});
    say("mode then %o\n", status.sem_perm.mode);
    children[0] = sleeper(set, 2, -1);
    wait_for_sleepers(set, 2, GETNCNT, 1);
    say("removed %d", semctl(set, 0, IPC_RMID));
    say(" sleeper %d gone %d\n", reap(children[0]), change(set, 0, 1, 0) == -1 && errno == EINVAL);
    close(counter);
}

/* ---- messages ---- */

struct message {
    long kind;
    char text[9000];
};

static int sent(int queue, long kind, const char *text, int flags)
{
    struct message message = {.kind = kind};
    strcpy(message.text, text);
    return msgsnd(queue, &message, strlen(text), flags);
}

static void say_message(const char *what, int queue, size_t room, long kind, int flags)
{
    struct message message = {0};
    ssize_t got = msgrcv(queue, &message, room, kind, flags);
    if (got < 0)
        say("%s: error %s\n", what, strerrorname_np(errno));
    else
        say("%s: %zd bytes kind %ld %.*s\n", what, got, message.kind, (int)got, message.text);
}

static void send_numbers(int queue)
{
    char text[600];
    for (int number = 1; number <= ROUNDS; number++) {
        memset(text, 'n', sizeof text);
        sprintf(text + 500, "%d", number);
        sent(queue, 1 + number % 3, text, 0);
    }
}

static void messages(void)
{
    close(opened(O_TRUNC));
    int queue = msgget(ftok(path, 'm'), IPC_CREAT | 0600);
    sent(queue, 3, "three", 0);
    sent(queue, 2, "two", 0);
    sent(queue, 5, "five", 0);
    sent(queue, 2, "", 0);
    struct msqid_ds status;
    msgctl(queue, IPC_STAT, &status);
    say("status %d messages %d bytes of %d mine %d %d\n", (int)status.msg_qnum,
        (int)status.__msg_cbytes, (int)status.msg_qbytes, status.msg_lspid == getpid(),
        status.msg_lrpid);
    say_message("too long", queue, 2, 3, 0);
    say_message("cut", queue, 2, 3, MSG_NOERROR);
    say_message("not two", queue, 100, 2, MSG_EXCEPT);
    say_message("at most four", queue, 100, -4, 0);
    say_message("any", queue, 100, 0, 0);
    say_message("none", queue, 100, 0, IPC_NOWAIT);
    say("errors %d %d", sent(queue, 0, "no kind", 0) == -1 && errno == EINVAL,
        msgsnd(queue, &(struct message){.kind = 1}, 9000, 0) == -1 && errno == EINVAL);
    interrupt_soon();
    struct message message;
    say(" interrupted %d\n", msgrcv(queue, &message, 10, 0, 0) == -1 && errno == EINTR);
    interrupt_no_more();
    /* More than it holds: senders wait. */
    pid_t children[2];
    for (int at = 0; at < 2; at++) {
        children[at] = fork();
        if (children[at] == 0) {
            send_numbers(queue);
            _exit(0);
        }
    }
    int sum = 0, kinds = 0;
    for (int number = 0; number < 2 * ROUNDS; number++) {
        ssize_t got = msgrcv(queue, &message, sizeof message.text - 1, 0, 0);
        if (got < 0)
            break;
        message.text[got] = 0;
        sum += atoi(message.text + 500);
        kinds += message.kind;
    }
    say("senders %d %d", reap(children[0]), reap(children[1]));
    say(" sum %d kinds %d\n", sum, kinds);
    while (sent(queue, 1, "as many as there is room for", IPC_NOWAIT) == 0)
        sum++;
    say("full %d after %d\n", errno == EAGAIN, sum);
    children[0] = fork();
    if (children[0] == 0)
        _exit(sent(queue, 1, "one more", 0) == -1 && errno == EIDRM ? 43 : 1);
    status.msg_qbytes = 100;
    say("set %d", msgctl(queue, IPC_SET, &status));
    msgctl(queue, IPC_STAT, &status);
    say(" %d\n", (int)status.msg_qbytes);
    usleep(20000);
    say("removed %d", msgctl(queue, IPC_RMID, NULL));
    int end = reap(children[0]);
    /* Natively it may have come too late to wait. */
    say(" sender %d\n", end == 43 || end == 1);
}

/* ---- shared memory ---- */

struct shared {
    pthread_mutex_t lock;
    unsigned number;
    char text[100];
};

static void attach_and_count(int segment)
{
    /* Not where the others have it. */
    mmap(NULL, 4096 * (1 + getpid() % 7), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct shared *it = shmat(segment, NULL, 0);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_mutex_lock(&it->lock);
        unsigned number = it->number;
        sched_yield();
        it->number = number + 1;
        pthread_mutex_unlock(&it->lock);
    }
}

static int attached(int segment)
{
    struct shmid_ds status;
    return shmctl(segment, IPC_STAT, &status) == 0 ? (int)status.shm_nattch : -1;
}

static void memory(void)
{
    close(opened(O_TRUNC));
    key_t key = ftok(path, 'h');
    int segment = shmget(key, 10000, IPC_CREAT | IPC_EXCL | 0600);
    say("made %d again %d same %d larger %d empty %d\n", segment >= 0,
        shmget(key, 1, IPC_CREAT | IPC_EXCL) == -1 && errno == EEXIST,
        shmget(key, 10000, 0) == segment, shmget(key, 20000, 0) == -1 && errno == EINVAL,
        shmget(IPC_PRIVATE, 0, 0600) == -1 && errno == EINVAL);
    struct shared *it = shmat(segment, NULL, 0);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&it->lock, &attributes);
    say("children %d", all_do(attach_and_count, segment));
    say(" counted %u attached %d\n", it->number, attached(segment));
    char *again = shmat(segment, NULL, SHM_RDONLY);
    strcpy(it->text, "seen twice");
    say("%s, attached %d", ((struct shared *)again)->text, attached(segment));
    say(" there already %d", shmat(segment, again, 0) == (void *)-1 && errno == EINVAL);
    say(" odd place %d\n", shmat(segment, again + 1, 0) == (void *)-1 && errno == EINVAL);
    int tell[2], ready[2];
    char byte;
    pipe(tell);
    pipe(ready);
    pid_t child = fork();
    if (child == 0) {
        close(tell[1]);
        write(ready[1], "x", 1);
        read(tell[0], &byte, 1);
        dup2(tell[0], 0);
        dup2(ready[1], 1);
        execl(self, self, "sleeper", NULL);
    }
    close(tell[0]);
    read(ready[0], &byte, 1);
    say("with a child %d", attached(segment));
    write(tell[1], "x", 1);
    read(ready[0], &byte, 1);
    say(", with one that executes %d\n", attached(segment));
    close(tell[1]);
    reap(child);
    struct shmid_ds status;
    shmctl(segment, IPC_STAT, &status);
    time_t now = time(NULL);
    say("status %zu mode %o made by me %d last %d times %d %d\n", status.shm_segsz,
        status.shm_perm.mode, status.shm_cpid == getpid(), status.shm_lpid == child,
        status.shm_atime <= now && status.shm_atime > now - 60,
        status.shm_ctime <= now && status.shm_ctime > now - 60);
    shmdt(again);
    say("removed %d", shmctl(segment, IPC_RMID, NULL));
    shmctl(segment, IPC_STAT, &status);
    say(" mode %o key %d attached %d", status.shm_perm.mode, status.shm_perm.__key,
        attached(segment));
    again = shmat(segment, NULL, 0);
    say(", by its id %s\n", ((struct shared *)again)->text);
    int fresh = shmget(key, 100, IPC_CREAT | 0600);
    say("fresh %d", fresh >= 0 && fresh != segment);
    say(" detached %d", shmdt(again));
    say(" %d", shmdt(it));
    say(" %d", shmdt(it) == -1 && errno == EINVAL);
    say(" gone %d\n", shmat(segment, NULL, 0) == (void *)-1 && errno == EINVAL);
    again = shmat(fresh, NULL, 0);
    say("zeros %d\n", again[0] == 0 && again[99] == 0);
    shmctl(fresh, IPC_RMID, NULL);
    shmdt(again);
}

static void answer(char command)
{
    const char *temporary = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%s/ipc-XXXXXX", temporary ? temporary : "/tmp");
    mkdtemp(directory);
    snprintf(path, sizeof path, "%s/file", directory);
    switch (command) {
    case 'f': flocks(); break;
    case 'r': records(); break;
    case 'p': fifos(); break;
    case 's': semaphores(); break;
    case 'm': messages(); break;
    case 'h': memory(); break;
    default: say("what?\n");
    }
    unlink(path);
    rmdir(directory);
}

int main(int argc, char **argv)
{
    self = argv[0];
    char byte;
    if (argc > 1 && strcmp(argv[1], "sleeper") == 0) {
        write(1, "x", 1);
        return read(0, &byte, 1) != 0;
    }
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(atoi(argv[argc - 1]))};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 16) != 0)
        return 1;
    for (;;) {
        client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        char command = 0;
        if (client >= 0 && read(client, &command, 1) == 1)
            answer(command);
        close(client);
    }
}
