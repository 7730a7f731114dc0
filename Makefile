# nunchi: `make help` lists what can be made. Everything lands under $(BUILD).
BUILD  ?= build
PREFIX ?= /usr/local
CC     := $(if $(filter default,$(origin CC)),gcc,$(CC))
PYTHON ?= python3
JOBS   ?= $(shell nproc)

VERSION := 0.1.0
Q := $(if $(V),,@)
need = @command -v $(1) >/dev/null || { echo '$(1) is not here; as root: deploy/install-deps dev' >&2; exit 1; }
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2))

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla -Wundef \
        -Wcast-qual -Wwrite-strings -Werror
HARDEN := -fstack-protector-strong -fPIE $(if $(SAN),,-D_FORTIFY_SOURCE=3)
OPT    ?= -O2 -g
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
# -ffp-contract=off: a fused multiply-add happens where the source says fma, and nowhere else (engine/README.md).
CFLAGS_ALL := -std=c11 -D_GNU_SOURCE $(OPT) $(WARN) $(HARDEN) -ffp-contract=off -fno-math-errno -I. -I$(BUILD)/gen \
              -DNUNCHI_VERSION_TEXT='"$(VERSION)"' $(SANFLAGS) $(CFLAGS)
LDFLAGS_ALL := -pie -Wl,-z,relro,-z,now -Wl,--as-needed -pthread $(SANFLAGS) $(LDFLAGS)

# ---- libraries: one folder each; main.c is never part of one -------------------------------------------------
PROTOS := $(wildcard proto/*.proto)
GEN_C  := $(PROTOS:%.proto=$(BUILD)/gen/%.pb-c.c)
GEN_H  := $(GEN_C:.c=.h)

src = $(filter-out %/main.c,$(foreach d,$(1),$(wildcard $(d)/*.c)))
SRC_base      := $(call src,common/base)
SRC_json      := $(call src,common/json)
SRC_trace     := $(call src,common/trace)
SRC_wire      := $(call src,common/wire)
SRC_engine    := $(call src,engine engine/kernels engine/model engine/backend)
SRC_convert   := $(call src,engine/convert)
SRC_gateway   := $(call src,gateway)
SRC_tokenizer := $(call src,tokenizer-svc)
SRC_video     := $(call src,video-svc)
SRC_decode    := $(call src,video-svc/decode)
SRC_model     := $(call src,model-svc)
SRC_cache     := $(call src,cache-svc)
SRC_cli       := $(call src,cli)
SRC_load      := $(call src,tests/load/lib)
LIBS := base json trace wire engine convert gateway tokenizer video decode model cache cli load

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(SRC_$(1))) $(if $(filter wire,$(1)),$(GEN_C:$(BUILD)/gen/%.c=$(BUILD)/obj/gen/%.o))
ar  = $(foreach l,$(1),$(BUILD)/lib/lib$(l).a)

# ---- programs: main.c, our archives, third-party packages (pkg-config names) ---------------------------------
BINS := nunchi nunchi-gateway nunchi-tokenizer nunchi-video nunchi-decode nunchi-model nunchi-cache
WIRE_PKGS := libzmq libprotobuf-c libsodium libxxhash

MAIN_nunchi           := cli/main.c
AR_nunchi             := cli convert engine json wire base
PKGS_nunchi           := libcurl libarchive jansson openblas $(WIRE_PKGS)
MAIN_nunchi-gateway   := gateway/main.c
AR_nunchi-gateway     := gateway json wire trace base
PKGS_nunchi-gateway   := libmicrohttpd jansson libcurl $(WIRE_PKGS)
MAIN_nunchi-tokenizer := tokenizer-svc/main.c
AR_nunchi-tokenizer   := tokenizer engine wire trace base
PKGS_nunchi-tokenizer := libcurl libpcre2-8 libutf8proc openblas $(WIRE_PKGS)
MAIN_nunchi-video     := video-svc/main.c
AR_nunchi-video       := video wire base
PKGS_nunchi-video     := libseccomp $(WIRE_PKGS)
MAIN_nunchi-decode    := video-svc/decode/main.c
AR_nunchi-decode      := decode base
PKGS_nunchi-decode    := libavformat libavcodec libavutil libswscale libjpeg tesseract lept libseccomp libsodium libxxhash
MAIN_nunchi-model     := model-svc/main.c
AR_nunchi-model       := model engine wire trace base
PKGS_nunchi-model     := openblas libcurl $(WIRE_PKGS)
MAIN_nunchi-cache     := cache-svc/main.c
AR_nunchi-cache       := cache wire trace base
PKGS_nunchi-cache     := hiredis libcurl $(WIRE_PKGS)

# A test may link anything; --as-needed drops what it does not use.
TEST_AR   := load gateway tokenizer video decode model cache cli convert engine json wire trace base
TEST_PKGS := cmocka libcurl libarchive jansson libmicrohttpd hiredis openblas libpcre2-8 libutf8proc libavformat libavcodec libavutil \
             libswscale libjpeg tesseract lept libseccomp $(WIRE_PKGS)

pc_libs = $(shell pkg-config --libs $(1))
pc_inc  = $(shell pkg-config --cflags-only-I $(1))
INC_openblas = $(eval INC_openblas := $(call pc_inc,openblas))$(INC_openblas)

# What would fail in the middle of a build is said before it, in one line; these goals build nothing themselves.
NEEDS := $(sort $(foreach b,$(BINS),$(PKGS_$(b))))
ifneq ($(filter-out help deps demo test clean fmt image,$(or $(MAKECMDGOALS),all)),)
  MISSING := $(shell for p in pkg-config protoc-c $(firstword $(CC)); do command -v $$p >/dev/null || echo $$p; done; \
               pkg-config --exists $(NEEDS) 2>/dev/null || for p in $(NEEDS); do pkg-config --exists $$p 2>/dev/null || echo $$p; done)
  ifneq ($(MISSING),)
    $(error nunchi is built with packages that are not here ($(MISSING)): run `make deps` as root (for clang: deploy/install-deps dev), or install what deploy/packages.txt lists)
  endif
endif

UNIT  := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/*.c tests/contract/*.c tests/golden/*.c))
FUZZ  := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/*.c))
TOOLS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/bench/*.c tests/load/*.c))

# ---- targets --------------------------------------------------------------------------------------------------
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all demo test check unit e2e asan ubsan tsan fuzz bench lint fmt image install clean help deps tools

all: $(BINS:%=$(BUILD)/bin/%) ## build the programs (default)

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

deps: ## install the Debian packages that nunchi needs (deploy/packages.txt; root)
	@deploy/install-deps

demo: deps ## one command: install, build, fetch a model, start the cluster, ask a video a question
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@PATH="$(CURDIR)/$(BUILD)/bin:$$PATH" deploy/demo

test: deps ## everything that proves it: unit, contract, golden, e2e, fault, compose (CI=true)
	@$(MAKE) --no-print-directory -j$(JOBS) check

check: all unit-build tools ## the same without installing packages
	@tests/run --build $(BUILD)

unit-build: $(UNIT)
unit: $(UNIT) ## the C tests alone
	@tests/run --build $(BUILD) --only unit

tools: $(TOOLS) ## the programs that measure: tests/bench, tests/load

asan: ## all C tests and services under AddressSanitizer
	$(MAKE) -j$(JOBS) BUILD=$(BUILD)/asan SAN=address,undefined OPT="-O1 -g" all unit-build tools
	@tests/run --build $(BUILD)/asan --sanitizer asan

ubsan: ## … under UndefinedBehaviorSanitizer
	$(MAKE) -j$(JOBS) BUILD=$(BUILD)/ubsan SAN=undefined OPT="-O1 -g" all unit-build tools
	@tests/run --build $(BUILD)/ubsan --sanitizer ubsan

tsan: ## … under ThreadSanitizer
	$(MAKE) -j$(JOBS) BUILD=$(BUILD)/tsan SAN=thread OPT="-O1 -g" all unit-build tools
	@tests/run --build $(BUILD)/tsan --sanitizer tsan

fuzz: ## run every fuzz target for FUZZ_SECONDS (30) each
	$(call need,clang)
	$(MAKE) -j$(JOBS) BUILD=$(BUILD)/fuzzing CC=clang SAN=fuzzer-no-link,address,undefined OPT="-O1 -g" fuzz-build
	@tests/fuzz/run $(BUILD)/fuzzing/fuzz

fuzz-build: $(FUZZ)

bench: all tools ## measure speed beside a named peer (docs/PERFORMANCE.md)
	@tests/bench/run --build $(BUILD)

lint: $(GEN_H) ## clang-tidy, cppcheck, and a second compiler
	$(call need,clang-tidy)
	$(call need,cppcheck)
	@tests/lint $(BUILD)

fmt: ## format the C sources in place
	$(call need,clang-format)
	@git ls-files '*.c' '*.h' | xargs clang-format -i

image: ## build the container image
	@deploy/image

install: all ## install the programs under PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(BINS:%=$(BUILD)/bin/%) $(DESTDIR)$(PREFIX)/bin

clean: ## remove the build folder
	rm -rf $(BUILD)

# ---- rules ----------------------------------------------------------------------------------------------------
$(BUILD)/gen/proto/%.pb-c.c $(BUILD)/gen/proto/%.pb-c.h &: proto/%.proto
	@mkdir -p $(BUILD)/gen
	$(call say,PROTO,$<)
	$(Q)protoc-c --c_out=$(BUILD)/gen $<

$(BUILD)/obj/gen/%.o: $(BUILD)/gen/%.c | $(GEN_H)
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(filter-out $(WARN),$(CFLAGS_ALL)) -MMD -MP -c -o $@ $<

# The instruction-set files alone get their flags; everything else runs on any x86-64.
# No fuzz target reaches the kernels, and instrumenting code unrolled like theirs takes the compiler many minutes.
UNFUZZED := $(if $(findstring fuzzer,$(SAN)),-fno-sanitize=all)
$(BUILD)/obj/engine/kernels/%_avx2.o: ISA = $(UNFUZZED) -O3 -mavx2 -mfma -mf16c
$(BUILD)/obj/engine/kernels/%_avx512.o: ISA = $(UNFUZZED) -O3 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c
$(BUILD)/obj/engine/kernels/%_portable.o: ISA = $(UNFUZZED) -O3
$(BUILD)/obj/engine/quant.o: ISA = -O3
$(BUILD)/obj/engine/%.o: ISA += $(INC_openblas)
$(BUILD)/obj/%.o: %.c | $(GEN_H)
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS_ALL) $(ISA) -MMD -MP -c -o $@ $<

define LIB_RULE
$(BUILD)/lib/lib$(1).a: $(call obj,$(1))
	@mkdir -p $$(@D)
	@rm -f $$@
	$(call say,AR,$$@)
	$$(Q)$$(AR) rcs $$@ $$^
endef
$(foreach l,$(LIBS),$(eval $(call LIB_RULE,$(l))))

define BIN_RULE
$(BUILD)/bin/$(1): $(BUILD)/obj/$(MAIN_$(1):.c=.o) $(call ar,$(AR_$(1)))
	@mkdir -p $$(@D)
	$(call say,LINK,$$@)
	$$(Q)$$(CC) $(LDFLAGS_ALL) -o $$@ $$< $(call ar,$(AR_$(1))) $$(call pc_libs,$(PKGS_$(1))) -lm
endef
$(foreach b,$(BINS),$(eval $(call BIN_RULE,$(b))))

# Archives between --start-group and --end-group: a test may need any of them in any order.
$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(call ar,$(TEST_AR))
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $< -Wl,--start-group $(call ar,$(TEST_AR)) -Wl,--end-group $(call pc_libs,$(TEST_PKGS)) -lm

$(BUILD)/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(call ar,$(TEST_AR))
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) -fsanitize=fuzzer -o $@ $< -Wl,--start-group $(call ar,$(TEST_AR)) -Wl,--end-group \
	    $(call pc_libs,$(TEST_PKGS)) -lm

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
