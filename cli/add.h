/* `nunchi model add`: a model that the user has becomes one that nunchi serves. */
#ifndef NUNCHI_ADD_H
#define NUNCHI_ADD_H

/* from: a folder of Hugging Face's kind, a file of weights in one, or a GGUF. name NULL: from the
 * path. quant NULL: the default. Returns the command's exit code. */
int add_model(const char *from, const char *name, const char *quant);

/* `nunchi model export`: its GGUF, for other programs. `to` must not exist. */
int export_model(const char *name, const char *to);

#endif
