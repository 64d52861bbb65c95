/* A QEMU plugin (plugin API 1) that counts executed AArch64 instructions by mnemonic between the guest's instructions
 * `hint #40` and `hint #41`. Its interface is declared here, so that it builds with no header:
 *
 *   gcc -O2 -fPIC -shared count_instructions.c -o libcount.so
 *   qemu-aarch64 -d plugin -D counts.txt -plugin ./libcount.so PROGRAM
 *
 * Exact and repeatable for a program with one thread. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, void (*)(uint64_t, struct qemu_plugin_tb*));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb*, size_t);
const void* qemu_plugin_insn_data(const struct qemu_plugin_insn*);
char* qemu_plugin_insn_disas(const struct qemu_plugin_insn*);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn*, int, void*, uint64_t);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn*, void (*)(unsigned, void*), int, void*);
void qemu_plugin_register_atexit_cb(uint64_t, void (*)(uint64_t, void*), void*);
void qemu_plugin_outs(const char*);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { kMnemonics = 1024, kStart = 0xd503251f, kStop = 0xd503253f };

static struct {
  char name[16];
  uint64_t count, before, between;
} table[kMnemonics];
static int used;

static uint64_t* find(const char* text) {
  size_t length = strcspn(text, " \t");
  if (length >= sizeof table[0].name) length = sizeof table[0].name - 1;
  int i = 0;
  while (i < used && (strlen(table[i].name) != length || memcmp(table[i].name, text, length) != 0)) i++;
  if (i == kMnemonics) abort();
  if (i == used) memcpy(table[used++].name, text, length);
  return &table[i].count;
}

static void start(unsigned cpu, void* unused) {
  (void)cpu, (void)unused;
  for (int i = 0; i < used; i++) table[i].before = table[i].count;
}

static void stop(unsigned cpu, void* unused) {
  (void)cpu, (void)unused;
  for (int i = 0; i < used; i++) table[i].between += table[i].count - table[i].before;
}

static void translate(uint64_t id, struct qemu_plugin_tb* block) {
  (void)id;
  const size_t count = qemu_plugin_tb_n_insns(block);
  for (size_t i = 0; i < count; i++) {
    struct qemu_plugin_insn* instruction = qemu_plugin_tb_get_insn(block, i);
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
    if (word == (uint32_t)kStart || word == (uint32_t)kStop) {
      qemu_plugin_register_vcpu_insn_exec_cb(instruction, word == (uint32_t)kStart ? start : stop, 0, NULL);
    } else {
      char* text = qemu_plugin_insn_disas(instruction);
      qemu_plugin_register_vcpu_insn_exec_inline(instruction, 0, find(text), 1);
      free(text);
    }
  }
}

static void finish(uint64_t id, void* unused) {
  (void)id, (void)unused;
  char line[64];
  for (int i = 0; i < used; i++) {
    if (table[i].between == 0) continue;
    snprintf(line, sizeof line, "%.15s %llu\n", table[i].name, (unsigned long long)table[i].between);
    qemu_plugin_outs(line);
  }
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void* info, int argc, char** argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  qemu_plugin_register_atexit_cb(id, finish, NULL);
  return 0;
}
