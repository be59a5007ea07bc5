// The library of server.c.

#ifndef GREETING
#define GREETING "hello\n"
#endif

const char *greeting(void) { return GREETING; }
