/* Shared memory of System V. */
#include "ipc.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

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

void memory(void)
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
