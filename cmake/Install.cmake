# Everything built goes into one private package, _ggml_delegate. It exists nowhere in the source
# tree, so running from the repository root cannot shadow the installed binaries.

set(package _ggml_delegate)
configure_file(cmake/_ggml_delegate.py.in "${CMAKE_CURRENT_BINARY_DIR}/${package}.py" @ONLY)

install(FILES "${CMAKE_CURRENT_BINARY_DIR}/${package}.py" DESTINATION ${package}
        RENAME __init__.py COMPONENT orchestrator)
install(FILES "${ORCHESTRATOR_IR_PYTHON}" DESTINATION ${package} COMPONENT orchestrator)
install(
  TARGETS ggml_backend openvino_backend _runtime orchestrator-run
  LIBRARY DESTINATION ${package} COMPONENT orchestrator
  RUNTIME DESTINATION ${package}/bin COMPONENT orchestrator)
if(ORCHESTRATOR_GGML_LICENSE)
  install(FILES "${ORCHESTRATOR_GGML_LICENSE}" DESTINATION ${package} RENAME ggml-LICENSE.txt
          COMPONENT orchestrator)
endif()
