// OpenVINO's C API, as far as the delegate calls it, found at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace openvino_delegate {

// OpenVINO's types, as the headers of its releases of 2025 declare them.
struct ov_core;
struct ov_compiled_model;
struct ov_infer_request;
struct ov_tensor;
struct ov_output_const_port;
struct ov_shape {
  int64_t rank;
  int64_t* dims;
};
struct ov_version {
  const char* build_number;
  const char* description;
};

// The functions, by their names in OpenVINO. All but those without a result return a status: 0 is
// good.
struct Api {
  int (*get_openvino_version)(ov_version*);
  void (*version_free)(ov_version*);
  const char* (*get_last_err_msg)();
  int (*core_create)(ov_core**);
  void (*core_free)(ov_core*);
  int (*core_set_property)(const ov_core*, const char* device, ...);
  int (*core_import_model)(const ov_core*, const char*, size_t, const char* device,
                           ov_compiled_model**);
  void (*compiled_model_free)(ov_compiled_model*);
  int (*compiled_model_inputs_size)(const ov_compiled_model*, size_t*);
  int (*compiled_model_outputs_size)(const ov_compiled_model*, size_t*);
  int (*compiled_model_input_by_index)(const ov_compiled_model*, size_t, ov_output_const_port**);
  int (*compiled_model_output_by_index)(const ov_compiled_model*, size_t, ov_output_const_port**);
  int (*port_get_element_type)(const ov_output_const_port*, int*);
  int (*const_port_get_shape)(const ov_output_const_port*, ov_shape*);
  int (*port_get_any_name)(const ov_output_const_port*, char**);
  void (*free)(const char*);
  void (*output_const_port_free)(ov_output_const_port*);
  int (*shape_free)(ov_shape*);
  int (*compiled_model_create_infer_request)(const ov_compiled_model*, ov_infer_request**);
  int (*infer_request_set_input_tensor_by_index)(ov_infer_request*, size_t, const ov_tensor*);
  int (*infer_request_set_output_tensor_by_index)(ov_infer_request*, size_t, const ov_tensor*);
  int (*infer_request_infer)(ov_infer_request*);
  void (*infer_request_free)(ov_infer_request*);
  int (*tensor_create_from_host_ptr)(int type, ov_shape, void*, ov_tensor**);
  void (*tensor_free)(ov_tensor*);
};

// What was found, which stays as it is. problem: why there is none, or empty.
struct Library {
  Api api{};
  std::string problem;
};

// Looks in this process, in OPENVINO_LIB_PATH, beside this library's Python package, and where the
// dynamic linker looks.
const Library& library();

}  // namespace openvino_delegate
