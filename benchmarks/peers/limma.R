# limma's moderated t of one coefficient, for screen_agreement.py.
# usage: Rscript limma.R MATRIX ROWS DESIGN COEFFICIENT TREND OUT   (raw doubles, little-endian, column by column)
# writes d0, then s0^2, t and p of every row
if (!suppressMessages(suppressWarnings(require(limma, quietly = TRUE)))) quit(status = 3)
a <- commandArgs(TRUE)
doubles <- function(file) readBin(file, "double", file.size(file) / 8, endian = "little")
Y <- matrix(doubles(a[1]), nrow = as.integer(a[2]))
X <- matrix(doubles(a[3]), nrow = ncol(Y))
fit <- eBayes(lmFit(Y, X), trend = a[5] == "TRUE")
j <- as.integer(a[4])
out <- c(fit$df.prior, rep_len(fit$s2.prior, nrow(Y)), fit$t[, j], fit$p.value[, j])
writeBin(as.double(out), a[6], endian = "little")
cat(as.character(packageVersion("limma")), "\n")
