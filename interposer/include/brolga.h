/* Hints for servers that are run under `brolga run --policy parallel`.
 *
 * A program that uses them needs no library and runs natively as it is: the functions behind them are weak
 * symbols, which are there only when the program is wrapped. Under policy `serial` they do nothing.
 * The names without a prefix are those of PARROT (SOSP'13); define BROLGA_NO_PARROT_NAMES to do without.
 */
#ifndef BROLGA_H
#define BROLGA_H

#ifdef __cplusplus
extern "C" {
#endif

__attribute__((weak)) void brolga_soba_init(long name, unsigned count, unsigned timeout_turns);
__attribute__((weak)) void brolga_soba_destroy(long name);
__attribute__((weak)) void brolga_soba_wait(long name);
__attribute__((weak)) void brolga_pcs_enter(void);
__attribute__((weak)) void brolga_pcs_exit(void);

#ifdef __cplusplus
}
#endif

#ifndef BROLGA_NO_PARROT_NAMES

/* Soft barriers: `count` threads that are about to compute for equally long wait for each other before
 * it, so that they compute beside each other instead of one after the other.
 *
 * It is a hint. A thread goes on when `count` threads are there, or `timeout_turns` ordered operations of
 * all threads after the first one came, or when nothing else can run; also at once, when there is no soft
 * barrier of that name. So it cannot stand for a barrier, and cannot make a program wrong.
 *
 * Names belong to a process; a child of fork has none. A process tree has up to 64. */
static inline void soba_init(long name, unsigned count, unsigned timeout_turns)
{
    if (brolga_soba_init)
        brolga_soba_init(name, count, timeout_turns);
}

static inline void soba_destroy(long name)
{
    if (brolga_soba_destroy)
        brolga_soba_destroy(name);
}

static inline void soba_wait(long name)
{
    if (brolga_soba_wait)
        brolga_soba_wait(name);
}

/* Performance-critical sections: between enter and exit the calling thread locks, tries to lock and unlocks
 * mutexes without waiting for its turn, at native speed, in whatever order threads come.
 *
 * The program promises that what it does outside does not depend on that order (adding up, for example).
 * Inside,
 *   - a mutex of a plain, recursive or error-checking kind may be locked and unlocked; the same mutex must
 *     not be used by another thread outside of sections meanwhile;
 *   - while such a mutex is held, no other call may be made whose order matters: no condition variable,
 *     no input or output, no clock, not pcs_exit. The server is stopped with a message if it does;
 *   - other calls are ordered as they are outside.
 * Others wait for a thread in a section as for one that computes. Sections may be nested. */
static inline void pcs_enter(void)
{
    if (brolga_pcs_enter)
        brolga_pcs_enter();
}

static inline void pcs_exit(void)
{
    if (brolga_pcs_exit)
        brolga_pcs_exit();
}

#endif
#endif
