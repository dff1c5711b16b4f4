# The project's own binaries. Sources are globbed, so a new op file needs no change here.

file(GLOB backend_sources CONFIGURE_DEPENDS runtime/ggml/*.cpp runtime/ggml/ops/*.cpp)
file(GLOB kernel_sources CONFIGURE_DEPENDS runtime/ggml/kernels/*.cpp)
file(GLOB openvino_sources CONFIGURE_DEPENDS runtime/openvino/*.cpp)
file(GLOB program_sources CONFIGURE_DEPENDS runtime/program/*.cpp)
file(GLOB module_sources CONFIGURE_DEPENDS runtime/python/*.cpp)
file(GLOB runner_sources CONFIGURE_DEPENDS runtime/runner/*.cpp)

set(ORCHESTRATOR_WRAP_MALLOC
    LINKER:--wrap=malloc LINKER:--wrap=calloc LINKER:--wrap=realloc LINKER:--wrap=posix_memalign
    LINKER:--wrap=free)

# The ggml delegate. Loading the library registers the backend with ExecuTorch's runtime.
add_library(ggml_backend SHARED ${backend_sources} ${kernel_sources})
target_compile_options(ggml_backend PRIVATE ${ORCHESTRATOR_CPU_OPTIONS})
# Kernels are loops to be vectorised in every build type, and none reads errno or FP traps.
set_source_files_properties(${kernel_sources} PROPERTIES COMPILE_OPTIONS
                                                         "-O3;-fno-math-errno;-fno-trapping-math")
# What rounds as PyTorch does, operation by operation.
set_property(SOURCE runtime/ggml/kernels/gather_integers.cpp APPEND PROPERTY COMPILE_OPTIONS
                                                                  -ffp-contract=off)
target_link_libraries(ggml_backend PRIVATE orchestrator_options orchestrator_ir orchestrator_ggml)
target_link_libraries(ggml_backend PUBLIC executorch::runtime)
target_link_options(ggml_backend PRIVATE LINKER:--exclude-libs,ALL LINKER:-z,defs)
if(NOT ORCHESTRATOR_USE_SYSTEM_GGML)
  # runtime/ggml/guard.cpp sees to ggml's allocations.
  set_source_files_properties(runtime/ggml/guard.cpp PROPERTIES COMPILE_DEFINITIONS
                                                                GGD_WRAPS_MALLOC)
  target_link_options(ggml_backend PRIVATE ${ORCHESTRATOR_WRAP_MALLOC})
endif()
set_target_properties(
  ggml_backend PROPERTIES INSTALL_RPATH "$ORIGIN;$ORIGIN/../executorch/lib"
                          INSTALL_RPATH_USE_LINK_PATH ${ORCHESTRATOR_USE_SYSTEM_GGML})

# ExecuTorch's programs for OpenVINO. OpenVINO itself is found when one is loaded.
add_library(openvino_backend SHARED ${openvino_sources})
target_link_libraries(openvino_backend PRIVATE orchestrator_options ${CMAKE_DL_LIBS})
target_link_libraries(openvino_backend PUBLIC executorch::runtime)
target_link_options(openvino_backend PRIVATE LINKER:-z,defs)
set_target_properties(openvino_backend PROPERTIES INSTALL_RPATH "$ORIGIN/../executorch/lib")

# Loading and running programs, shared by the Python module and the runner.
add_library(program STATIC ${program_sources})
target_link_libraries(program PRIVATE orchestrator_options)
target_link_libraries(program PUBLIC executorch::runtime executorch::threadpool
                                     executorch::etdump)

# Kernels and delegates register themselves as their libraries load; nothing refers to them by
# symbol, so the linker has to be told to keep them.
add_library(program_with_backends INTERFACE)
target_link_options(program_with_backends INTERFACE LINKER:--no-as-needed)
target_link_libraries(
  program_with_backends INTERFACE program executorch::kernels_optimized
                                  executorch::kernels_quantized executorch::backend_xnnpack
                                  ggml_backend openvino_backend)

pybind11_add_module(_runtime MODULE NO_EXTRAS ${module_sources})
target_link_libraries(_runtime PRIVATE orchestrator_options program_with_backends)
set_target_properties(_runtime PROPERTIES INSTALL_RPATH "$ORIGIN;$ORIGIN/../executorch/lib")

# The runner's options and JSON.
find_path(CLI11_INCLUDE_DIR CLI/CLI.hpp)
find_path(NLOHMANN_JSON_INCLUDE_DIR nlohmann/json.hpp)
if(NOT CLI11_INCLUDE_DIR OR NOT NLOHMANN_JSON_INCLUDE_DIR)
  message(FATAL_ERROR "The headers of CLI11 or nlohmann-json are missing: install the packages "
                      "libcli11-dev and nlohmann-json3-dev (apt-get install ...).")
endif()
add_executable(orchestrator-run ${runner_sources})
target_include_directories(orchestrator-run SYSTEM PRIVATE "${CLI11_INCLUDE_DIR}"
                                                           "${NLOHMANN_JSON_INCLUDE_DIR}")
target_link_libraries(orchestrator-run PRIVATE orchestrator_options program_with_backends)
set_target_properties(orchestrator-run PROPERTIES INSTALL_RPATH
                                                  "$ORIGIN/..;$ORIGIN/../../executorch/lib")
