#include "slots.h"

#include <string>

namespace ggml_delegate::fuzz {
namespace {

using flatbuffers::Table;
using reflection::BaseType;

class Walk {
 public:
  explicit Walk(const reflection::Schema& schema) : schema_(schema) {}

  void table(const reflection::Object& object, Table& table) {
    for (const reflection::Field* field : *object.fields()) {
      if (table.CheckField(field->offset())) this->field(object, *field, table);
    }
  }

  std::vector<Slot> take() { return std::move(slots_); }

 private:
  const reflection::Object& object(int index) const {
    return *schema_.objects()->Get(static_cast<flatbuffers::uoffset_t>(index));
  }

  void field(const reflection::Object& parent, const reflection::Field& field, Table& table) {
    const BaseType type = field.type()->base_type();
    if (type <= reflection::Double) {
      add(table.GetAddressOf(field.offset()), type);
    } else if (type == reflection::Obj) {
      const reflection::Object& child = object(field.type()->index());
      if (child.is_struct()) {
        structure(child, table.GetStruct<uint8_t*>(field.offset()));
      } else {
        this->table(child, *table.GetPointer<Table*>(field.offset()));
      }
    } else if (type == reflection::Union) {
      union_of(parent, field, table);
    } else if (type == reflection::Vector) {
      vector(field, table);
    }
  }

  void union_of(const reflection::Object& parent, const reflection::Field& field, Table& table) {
    const std::string name = field.name()->str() + "_type";
    const reflection::Field* type_field = parent.fields()->LookupByKey(name.c_str());
    if (type_field == nullptr) return;
    const auto type = table.GetField<uint8_t>(type_field->offset(), 0);
    const auto* values =
        schema_.enums()->Get(static_cast<flatbuffers::uoffset_t>(field.type()->index()))->values();
    for (const reflection::EnumVal* value : *values) {
      if (value->value() == type && value->union_type() != nullptr &&
          value->union_type()->index() >= 0) {
        this->table(object(value->union_type()->index()),
                    *table.GetPointer<Table*>(field.offset()));
      }
    }
  }

  void vector(const reflection::Field& field, Table& table) {
    auto* elements = table.GetPointer<flatbuffers::VectorOfAny*>(field.offset());
    const BaseType element = field.type()->element();
    if (element <= reflection::Double) {
      const size_t size = flatbuffers::GetTypeSize(element);
      for (size_t i = 0; i < elements->size(); ++i) add(elements->Data() + i * size, element);
    } else if (element == reflection::Obj) {
      const reflection::Object& child = object(field.type()->index());
      if (child.is_struct()) {
        for (size_t i = 0; i < elements->size(); ++i) {
          structure(child, elements->Data() + i * static_cast<size_t>(child.bytesize()));
        }
      } else {
        auto* tables = reinterpret_cast<flatbuffers::Vector<flatbuffers::Offset<Table>>*>(elements);
        for (flatbuffers::uoffset_t i = 0; i < tables->size(); ++i) {
          this->table(child, *tables->GetMutableObject(i));
        }
      }
    }
  }

  void structure(const reflection::Object& object, uint8_t* bytes) {
    for (const reflection::Field* field : *object.fields()) {
      add(bytes + field->offset(), field->type()->base_type());
    }
  }

  void add(uint8_t* bytes, BaseType type) {
    if (bytes != nullptr && type >= reflection::UType && type <= reflection::Double) {
      slots_.push_back({bytes, type});
    }
  }

  const reflection::Schema& schema_;
  std::vector<Slot> slots_;
};

}  // namespace

std::vector<Slot> find_slots(const reflection::Schema& schema, uint8_t* buffer) {
  Walk walk(schema);
  walk.table(*schema.root_table(), *flatbuffers::GetMutableRoot<Table>(buffer));
  return walk.take();
}

}  // namespace ggml_delegate::fuzz
