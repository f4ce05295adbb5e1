/* An external TFLite delegate that does as its option `mode` says, for the file that divides ids by mask:
   all (takes its three nodes), some (takes the division only), none, wrong (all, and answers 1 too much), refuse
   (is not made), prepare-fails, crash (SIGSEGV in a run), hang (a run that never ends).
   The structures are those of TFLite's C interface (tensorflow/lite/core/c/common.h), cut where nothing is read. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { kOk = 0, kError = 1, kBuiltinDiv = 42, kBuiltinDelegate = 51, kFloat32 = 1 };

typedef struct { int size; int data[]; } IntArray;
typedef struct Context Context;
typedef struct Delegate Delegate;

typedef struct {
  int type;
  union { void* raw; float* f; int32_t* i32; } data;
  IntArray* dims;
  struct { float scale; int32_t zero_point; } params;
  int allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  Delegate* delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  struct { int type; void* params; } quantization;
  void* sparsity;
  const IntArray* dims_signature;
} Tensor;

typedef struct {
  IntArray* inputs;
  IntArray* outputs;
} Node;

typedef struct {
  void* (*init)(Context*, const char*, size_t);
  void (*free)(Context*, void*);
  int (*prepare)(Context*, Node*);
  int (*invoke)(Context*, Node*);
  const char* (*profiling_string)(const Context*, const Node*);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void* registration_external;
  void* async_kernel;
  uint64_t inplace_operator;
} Registration;

struct Context {
  size_t tensors_size;
  int (*GetExecutionPlan)(Context*, IntArray**);
  Tensor* tensors;
  void* impl;
  int (*ResizeTensor)(Context*, Tensor*, IntArray*);
  void (*ReportError)(Context*, const char*, ...);
  int (*AddTensors)(Context*, int, int*);
  int (*GetNodeAndRegistration)(Context*, int, Node**, Registration**);
  int (*ReplaceNodes)(Context*, Registration, const IntArray*, Delegate*);
};

struct Delegate {
  void* data;
  int (*Prepare)(Context*, Delegate*);
  void *copy_from, *copy_to, *free_handle;
  int64_t flags;
  void* builder;
};

static char mode[32] = "none";

static float value(const Tensor* tensor, size_t place) {
  return tensor->type == kFloat32 ? tensor->data.f[place] : (float)tensor->data.i32[place];
}

static int invoke(Context* context, Node* node) {
  const Tensor *a = &context->tensors[node->inputs->data[0]], *b = &context->tensors[node->inputs->data[1]];
  Tensor* out = &context->tensors[node->outputs->data[0]];
  if (!strcmp(mode, "crash")) *(volatile int*)0 = 1;
  while (!strcmp(mode, "hang")) pause();
  for (size_t i = 0; i < out->bytes / sizeof(float); i++)
    out->data.f[i] = value(a, i) / value(b, i) + (strcmp(mode, "wrong") ? 0 : 1);
  return kOk;
}

static int kernel_prepare(Context* context, Node* node) { return kOk; }

static int prepare(Context* context, Delegate* delegate) {
  IntArray* plan;
  if (!strcmp(mode, "prepare-fails")) {
    context->ReportError(context, "the delegate can't prepare");
    return kError;
  }
  if (!strcmp(mode, "none") || context->GetExecutionPlan(context, &plan)) return kOk;
  IntArray* taken = calloc(1, sizeof *taken + plan->size * sizeof(int));
  for (int i = 0; i < plan->size; i++) {
    Node* node;
    Registration* registration;
    if (context->GetNodeAndRegistration(context, plan->data[i], &node, &registration)) return kError;
    if (strcmp(mode, "some") || registration->builtin_code == kBuiltinDiv) taken->data[taken->size++] = plan->data[i];
  }
  Registration kernel = {.prepare = kernel_prepare, .invoke = invoke, .builtin_code = kBuiltinDelegate,
                         .custom_name = "EdgekitTestDelegate", .version = 1};
  int status = context->ReplaceNodes(context, kernel, taken, delegate);
  free(taken);
  return status;
}

Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*error)(const char*)) {
  for (size_t i = 0; i < count; i++)
    if (!strcmp(keys[i], "mode")) strncpy(mode, values[i], sizeof mode - 1);
  if (!strcmp(mode, "refuse")) {
    error("no such device");
    return NULL;
  }
  Delegate* delegate = calloc(1, sizeof *delegate);
  delegate->Prepare = prepare;
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) { free(delegate); }
