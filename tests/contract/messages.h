/* Every message of the protocol: for the golden test and the fuzzer. A message that is missing here
 * fails the golden test once its bytes are there. */
#ifndef NUNCHI_CONTRACT_MESSAGES_H
#define NUNCHI_CONTRACT_MESSAGES_H

#include "proto/cache.pb-c.h"
#include "proto/generate.pb-c.h"
#include "proto/result.pb-c.h"
#include "proto/session.pb-c.h"
#include "proto/token.pb-c.h"
#include "proto/video.pb-c.h"

static const ProtobufCMessageDescriptor *const messages[] = {
    /* session */
    &nunchi__ready__descriptor,
    &nunchi__model_info__descriptor,
    &nunchi__heartbeat__descriptor,
    &nunchi__error__descriptor,
    &nunchi__credit__descriptor,
    &nunchi__cancel__descriptor,
    &nunchi__bye__descriptor,
    /* cache */
    &nunchi__cache_request__descriptor,
    &nunchi__blob_key__descriptor,
    &nunchi__blob_get__descriptor,
    &nunchi__blob_put__descriptor,
    &nunchi__blob_puts__descriptor,
    &nunchi__blob_have__descriptor,
    &nunchi__blob_delete__descriptor,
    &nunchi__cache_reply__descriptor,
    &nunchi__blob_values__descriptor,
    &nunchi__blob_present__descriptor,
    &nunchi__done__descriptor,
    &nunchi__file_record__descriptor,
    &nunchi__file_put__descriptor,
    &nunchi__file_get__descriptor,
    &nunchi__file_list__descriptor,
    &nunchi__file_records__descriptor,
    &nunchi__file_delete__descriptor,
    &nunchi__file_progress__descriptor,
    /* generate */
    &nunchi__generate__descriptor,
    &nunchi__segment__descriptor,
    &nunchi__tokens__descriptor,
    &nunchi__rows__descriptor,
    &nunchi__sampling__descriptor,
    &nunchi__logit_bias__descriptor,
    &nunchi__constraint__descriptor,
    &nunchi__choice__descriptor,
    &nunchi__step_tokens__descriptor,
    &nunchi__delta__descriptor,
    &nunchi__token_logprob__descriptor,
    &nunchi__top_logprob__descriptor,
    &nunchi__generated__descriptor,
    &nunchi__choice_end__descriptor,
    /* result */
    &nunchi__stored_result__descriptor,
    &nunchi__stored_choice__descriptor,
    /* token */
    &nunchi__token_request__descriptor,
    &nunchi__tokenize__descriptor,
    &nunchi__chat__descriptor,
    &nunchi__chat_turn__descriptor,
    &nunchi__chat_part__descriptor,
    &nunchi__prompt__descriptor,
    &nunchi__video_ref__descriptor,
    &nunchi__tokenized__descriptor,
    &nunchi__placed_video__descriptor,
    &nunchi__detokenize__descriptor,
    &nunchi__detokenized__descriptor,
    &nunchi__token_reply__descriptor,
    /* video */
    &nunchi__ingest__descriptor,
    &nunchi__ingesting__descriptor,
    &nunchi__ingested__descriptor,
    &nunchi__notes__descriptor,
    &nunchi__container__descriptor,
    &nunchi__track__descriptor,
    &nunchi__span__descriptor,
    &nunchi__scene__descriptor,
    &nunchi__frame__descriptor,
};

#endif
