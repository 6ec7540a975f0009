/* A CUDA driver without a GPU, for the real pycuda and cuda-bindings: device memory is host memory, work is done at once
 * (so that nothing can be recorded).  Every call needs a current context, as with the real one.  Compiled by the tests. */
#define _GNU_SOURCE
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static CUcontext stack[64]; static int sp=0; static long live=0, limit=1L<<34; static char ctxs[4];
#define NEED if(sp==0) return CUDA_ERROR_INVALID_CONTEXT
CUresult cuInit(unsigned f){return 0;}
CUresult cuDriverGetVersion(int*v){*v=13000;return 0;}
CUresult cuDeviceGetCount(int*c){*c=1;return 0;}
CUresult cuDeviceGet(CUdevice*d,int i){*d=i;return 0;}
CUresult cuDeviceGetName(char*n,int l,CUdevice d){strcpy(n,"NVIDIA Fake");return 0;}
CUresult cuDeviceComputeCapability(int*a,int*b,CUdevice d){*a=8;*b=9;return 0;}
CUresult cuDeviceGetAttribute(int*v,CUdevice_attribute a,CUdevice d){
 if(a==CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)*v=8;else if(a==CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)*v=9;
 else return CUDA_ERROR_INVALID_VALUE;return 0;}
CUresult cuDevicePrimaryCtxRetain(CUcontext*c,CUdevice d){*c=(CUcontext)&ctxs[d];return 0;}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice d){return 0;}
CUresult cuCtxPushCurrent_v2(CUcontext c){stack[sp++]=c;return 0;}
CUresult cuCtxPopCurrent_v2(CUcontext*c){if(!sp)return CUDA_ERROR_INVALID_CONTEXT; *c=stack[--sp];return 0;}
CUresult cuCtxGetDevice(CUdevice*d){NEED;*d=0;return 0;}
CUresult cuStreamCreate(CUstream*s,unsigned f){NEED;if(f!=CU_STREAM_NON_BLOCKING)return CUDA_ERROR_INVALID_VALUE;*s=malloc(8);return 0;}
CUresult cuStreamDestroy_v2(CUstream s){NEED;free(s);return 0;}
CUresult cuStreamSynchronize(CUstream s){NEED;return 0;}
CUresult cuEventCreate(CUevent*e,unsigned f){NEED;*e=malloc(8);return 0;}
CUresult cuEventDestroy_v2(CUevent e){NEED;free(e);return 0;}
CUresult cuEventRecord(CUevent e,CUstream s){NEED;return 0;}
CUresult cuEventSynchronize(CUevent e){NEED;return 0;}
CUresult cuEventElapsedTime_v2(float*t,CUevent a,CUevent b){*t=10;return 0;}
CUresult cuMemGetInfo_v2(size_t*f,size_t*t){NEED;*f=limit-live;*t=limit;return 0;}
CUresult cuMemAlloc_v2(CUdeviceptr*p,size_t n){NEED; if(n>(1L<<28))return CUDA_ERROR_OUT_OF_MEMORY; *p=(CUdeviceptr)aligned_alloc(256,(n+255)/256*256);live++;return 0;}
CUresult cuMemFree_v2(CUdeviceptr p){NEED;free((void*)p);live--;return 0;}
CUresult cuMemHostAlloc(void**p,size_t n,unsigned f){NEED;*p=malloc(n);live++;return 0;}
CUresult cuMemFreeHost(void*p){NEED;free(p);live--;return 0;}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr d,const void*s,size_t n,CUstream t){NEED;memcpy((void*)d,s,n);return 0;}
CUresult cuMemcpyDtoHAsync_v2(void*d,CUdeviceptr s,size_t n,CUstream t){NEED;memcpy(d,(void*)s,n);return 0;}
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D*c,CUstream t){NEED;if(c->srcMemoryType!=CU_MEMORYTYPE_DEVICE||c->dstMemoryType!=CU_MEMORYTYPE_DEVICE)return CUDA_ERROR_INVALID_VALUE;
 for(size_t i=0;i<c->Height;i++)memcpy((char*)c->dstDevice+(c->dstY+i)*c->dstPitch+c->dstXInBytes,(char*)c->srcDevice+(c->srcY+i)*c->srcPitch+c->srcXInBytes,c->WidthInBytes);return 0;}
CUresult cuGetErrorString(CUresult e,const char**s){*s="fake error";return 0;}
CUresult cuStreamBeginCapture_v2(CUstream s,CUstreamCaptureMode m){NEED;return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;}
/* How cuda-bindings finds the functions: by their names without the number of the version. */
CUresult cuGetProcAddress_v2(const char*name,void**f,int version,cuuint64_t flags,CUdriverProcAddressQueryResult*status){
 char numbered[128];snprintf(numbered,sizeof numbered,"%s_v2",name);
 void*self=dlopen("libcuda.so.1",RTLD_NOLOAD|RTLD_LAZY);
 *f=self?dlsym(self,numbered):0;if(self&&!*f)*f=dlsym(self,name);
 if(status)*status=*f?CU_GET_PROC_ADDRESS_SUCCESS:CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
 return *f?0:CUDA_ERROR_NOT_FOUND;}
long fake_live(void){return live;}
