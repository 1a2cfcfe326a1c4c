// Switches stacks, and declares the sanitizers' functions for it.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_THREAD__)
#define GPUHOST_TSAN 1
extern "C" {
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void* __tsan_get_current_fiber();
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#elif defined(__SANITIZE_ADDRESS__) && !defined(IMKD_COUNT)
#define GPUHOST_ASAN 1
extern "C" {
void __sanitizer_start_switch_fiber(void**, const void*, std::size_t);
void __sanitizer_finish_switch_fiber(void*, const void**, std::size_t*);
}
#endif

#if defined(__x86_64__)  // callee-saved registers only: no signal-mask system call, unlike swapcontext
asm(R"(.pushsection .text
.weak gpuhost_switch
.type gpuhost_switch,@function
gpuhost_switch: pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
 movq %rsp,(%rdi); movq %rsi,%rsp
 popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp; ret
.size gpuhost_switch,.-gpuhost_switch
.popsection)");
#elif defined(__aarch64__)
asm(R"(.pushsection .text
.weak gpuhost_switch
.type gpuhost_switch,%function
gpuhost_switch: sub sp,sp,#160
 stp x19,x20,[sp]; stp x21,x22,[sp,#16]; stp x23,x24,[sp,#32]
 stp x25,x26,[sp,#48]; stp x27,x28,[sp,#64]; stp x29,x30,[sp,#80]
 stp d8,d9,[sp,#96]; stp d10,d11,[sp,#112]; stp d12,d13,[sp,#128]; stp d14,d15,[sp,#144]
 mov x9,sp; str x9,[x0]; mov sp,x1
 ldp x19,x20,[sp]; ldp x21,x22,[sp,#16]; ldp x23,x24,[sp,#32]
 ldp x25,x26,[sp,#48]; ldp x27,x28,[sp,#64]; ldp x29,x30,[sp,#80]
 ldp d8,d9,[sp,#96]; ldp d10,d11,[sp,#112]; ldp d12,d13,[sp,#128]; ldp d14,d15,[sp,#144]
 add sp,sp,#160; ret
.size gpuhost_switch,.-gpuhost_switch
.popsection)");
#else
#error "switch.hpp: add gpuhost_switch for this CPU"
#endif
extern "C" void gpuhost_switch(void** save_sp, void* load_sp);
