/* rope_fields.h: the rotary part of config.json, in its spellings: rope_scaling {"type" | "rope_type"}, and the newer
 * rope_parameters with rope_theta inside it. */
#ifndef MINISGL_MODEL_ROPE_FIELDS_H
#define MINISGL_MODEL_ROPE_FIELDS_H
#include "model/config.h"
#include "model/fields.h"

/* *max_position comes in as max_position_embeddings and goes out as the length that the scaling makes of it, as
 * vLLM derives it: times the factor for linear and dynamic, original_max * factor for yarn. */
void rope_fields_read(struct rope_config *r, struct fields *f, int32_t head_dim, int32_t *max_position);

#endif
