# Generates the IR's C++ and Python classes from schema/ir.fbs.
#
# orchestrator_ir: interface library with ir_generated.h and the FlatBuffers headers.
# ORCHESTRATOR_IR_PYTHON: the generated Python module.

find_path(FLATBUFFERS_INCLUDE_DIR flatbuffers/flatbuffers.h)
if(NOT FLATBUFFERS_INCLUDE_DIR)
  message(FATAL_ERROR "FlatBuffers' C++ headers are missing: install the package "
                      "libflatbuffers-dev (apt-get install libflatbuffers-dev).")
endif()
# The system's compiler goes with the system's headers. The virtual environment's bin/ holds
# another flatc, of ExecuTorch's, so the usual search order would pick the wrong one.
find_program(FLATC_EXECUTABLE flatc PATHS /usr/bin /usr/local/bin NO_DEFAULT_PATH)
find_program(FLATC_EXECUTABLE flatc)
if(NOT FLATC_EXECUTABLE)
  message(FATAL_ERROR "The FlatBuffers compiler is missing: install the package "
                      "flatbuffers-compiler (apt-get install flatbuffers-compiler).")
endif()
if(NOT EXISTS "${WHEEL_FLATC_EXECUTABLE}")
  message(FATAL_ERROR "The executorch package has no flatc at ${WHEEL_FLATC_EXECUTABLE}: "
                      "install executorch==1.5.1.")
endif()

file(STRINGS "${FLATBUFFERS_INCLUDE_DIR}/flatbuffers/base.h" version_lines
     REGEX "define FLATBUFFERS_VERSION_(MAJOR|MINOR|REVISION)")
string(REGEX REPLACE "[^0-9]+([0-9]+)[^0-9;]*;?" "\\1." headers_version "${version_lines}")
string(REGEX REPLACE "\\.$" "" headers_version "${headers_version}")
execute_process(COMMAND "${FLATC_EXECUTABLE}" --version OUTPUT_VARIABLE flatc_version
                        COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" flatc_version "${flatc_version}")
if(NOT flatc_version VERSION_EQUAL headers_version)
  message(
    FATAL_ERROR
      "FlatBuffers versions differ: ${FLATC_EXECUTABLE} is ${flatc_version}, the headers in "
      "${FLATBUFFERS_INCLUDE_DIR} are ${headers_version}. Generated C++ must match its headers: "
      "install flatbuffers-compiler and libflatbuffers-dev of one version, or set "
      "FLATC_EXECUTABLE and FLATBUFFERS_INCLUDE_DIR.")
endif()

set(schema "${CMAKE_CURRENT_SOURCE_DIR}/schema/ir.fbs")
set(generated "${CMAKE_CURRENT_BINARY_DIR}/generated")
set(ORCHESTRATOR_IR_HEADER "${generated}/cpp/ir_generated.h")
set(ORCHESTRATOR_IR_PYTHON "${generated}/python/ir_generated.py")

set(ir_header_options --cpp)
if(ORCHESTRATOR_FUZZ)
  list(APPEND ir_header_options --gen-object-api --bfbs-gen-embed) # for fuzz/mutator.cpp
endif()
add_custom_command(
  OUTPUT "${ORCHESTRATOR_IR_HEADER}"
  COMMAND "${FLATC_EXECUTABLE}" ${ir_header_options} -o "${generated}/cpp" "${schema}"
  DEPENDS "${schema}"
  VERBATIM)
add_custom_command(
  OUTPUT "${ORCHESTRATOR_IR_PYTHON}"
  COMMAND "${WHEEL_FLATC_EXECUTABLE}" --python --gen-object-api --gen-onefile -o
          "${generated}/python" "${schema}"
  DEPENDS "${schema}"
  VERBATIM)
add_custom_target(ir_header DEPENDS "${ORCHESTRATOR_IR_HEADER}")
add_custom_target(ir_python ALL DEPENDS "${ORCHESTRATOR_IR_PYTHON}")

add_library(orchestrator_ir INTERFACE)
target_include_directories(orchestrator_ir SYSTEM INTERFACE "${generated}/cpp"
                                                            "${FLATBUFFERS_INCLUDE_DIR}")
add_dependencies(orchestrator_ir ir_header)
